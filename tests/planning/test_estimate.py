"""Estimates against what follows from the definitions: what is sent and kept, and the seconds."""

import dataclasses
import json

import jax
import pytest

from configs import gemma2_2b_math
from passk_jax.learner.train_state import init_state
from passk_jax.planning import estimate
from passk_jax.planning.chips import parse_slice
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.sharding import make_layout
from passk_jax.run.parts import build_policy
from tests.planning.test_work import SIZES, parts_of, split_parts
from tests.planning.tpu import devices
from tests.tiny import ROOT, tiny_config

# Of the mesh 2 x 2 x 2, devices 0 and 1 share the model, and 0, 2, 4, 6 have different samples.
MODEL = ((0, 1), (2, 3), (4, 5), (6, 7))
BATCH = ((0, 2, 4, 6), (1, 3, 5, 7))
# Float32 numbers of 4 layers and of the embedding, half of them on a device.
LAYERS = 4 * (16 * 8 * 40 + 3 * 40 * 96) // 2
HEAD = 300 * 40 // 2


def sent(name, parts, tokens=24):
    return [
        (e.kind, e.groups, e.times, e.sent_bytes) for e in estimate.exchanges(name, parts, tokens)
    ]


def test_what_an_update_sends():
    # Of each device: 2 prompts of 32 tokens, 4 samples of 24; 40 wide, in float32.
    rows = 2 * 32 + 4 * 24
    activations = rows * 40 * 4
    # Attention and feed-forward of 4 layers, forward and backward; embeddings, and the logits'
    # gradient. Two devices add up x by sending half of it twice.
    sums = ("all-reduce", MODEL, 18, 18 * activations)
    # Four devices have a quarter of the parameters each: prompts and samples, forward and backward.
    layers = ("all-gather", BATCH, 4 * 4 * 7, 4 * 3 / 4 * LAYERS * 4)
    head = ("all-gather", BATCH, 1, 3 / 4 * HEAD * 4)
    # The gradients of prompts and of samples; of the logits' one chunk, and of the embedding.
    # The 7 matrices of each layer alone.
    gradients = [
        ("reduce-scatter", BATCH, times, 2 * 3 / 4 * size * 4)
        for size, times in ((LAYERS, 2 * 4 * 7), (HEAD, 2))
    ]
    rest = ("all-gather", BATCH, 1, 3 * activations)
    assert sent("update", split_parts()) == [sums, layers, head, *gradients, rest]
    # All made again: 8 sums more. LoRA's rank 3 is what gradients have then.
    parts = split_parts(policy__remat="full", lora__rank=3)
    again = sent("update", parts)
    assert again[0] == ("all-reduce", MODEL, 26, 26 * activations)
    lora = 4 * 3 * (7 * 40 + (2 * (3 + 1) * 8 + 3 * 48))
    assert again[3:] == [("reduce-scatter", BATCH, 2 * 4 * 7, 2 * 3 / 4 * lora * 4)]
    # Forward alone, as for a reference: half the gathers, and no gradient.
    assert [(e[0], e[2]) for e in sent("reference", split_parts())] == [
        ("all-reduce", 9),
        ("all-gather", 2 * 4 * 7),
        ("all-gather", 1),
    ]


def test_micro_batches_send_parameters_each_time():
    whole, parts = (sent("update", split_parts(**{"micro_batch__samples": m})) for m in (4, 2))
    # Layers' parameters and gradients, as often as there are micro-batches.
    assert [(b[2], b[3]) for b in parts[1:4]] == [(2 * a[2], 2 * a[3]) for a in whole[1:4]]


def test_gradients_are_added_up_where_parameters_are_whole():
    parts = split_parts()
    rules = dict(parts.decoder.layout.rules) | {"embed": ()}
    layout = make_layout(parts.decoder.layout.mesh, rules)
    parts = dataclasses.replace(parts, decoder=Decoder(parts.decoder.config, layout))
    # No gathers of parameters; 4 devices add up x by sending 3/4 of it twice.
    assert [e for e in sent("update", parts) if e[1] == BATCH][:-1] == [
        ("all-reduce", BATCH, 2, 2 * 2 * 3 / 4 * size * 4) for size in (LAYERS, HEAD)
    ]


def test_what_sampling_sends():
    parts = split_parts()
    layout = make_layout(
        parts.decoder.layout.mesh, dict(parts.decoder.layout.rules) | {"embed": ()}
    )
    parts = dataclasses.replace(
        parts, sampling_decoder=Decoder(parts.sampling_decoder.config, layout)
    )
    # Attention, feed-forward and embeddings: once for 2 prompts of 32, 11 times for 4 samples.
    prompts, tokens, draw, block, *ends = sent("sampling", parts, 11)
    assert prompts == ("all-reduce", MODEL, 9, 9 * 2 * 32 * 40 * 4)
    assert tokens == ("all-reduce", MODEL, 99, 99 * 4 * 40 * 4)
    assert draw[:2] == ("all-reduce", MODEL) and draw[2] % 11 == 0
    # Of the vocabulary of 300 each draw looks at a block of 15, on whichever device it is.
    assert block == ("all-reduce", MODEL, 11, 11 * 4 * 15 * 4)
    # Whether all have ended, of two halves of the problems and then of the samples.
    assert [each[:1] + each[2:] for each in ends] == 2 * [("all-reduce", 11, 11 * 4)]


def test_one_device_sends_nothing():
    assert sent("update", parts_of()) == sent("sampling", parts_of()) == []


def test_seconds_of_a_token():
    """Another 12 tokens read all parameters, and all keys and values, 12 times."""
    parts = build_policy(tiny_config(**SIZES), None, devices("v5e:1x1"))
    on = parse_slice("v5e:1x1")
    parameters = 4 * (2 * LAYERS + 2 * HEAD)
    token = 4 * 2 * 2 * 8  # of a layer; of 2 layers 13 are seen, of 2 all
    caches = token * 2 * (4 * (13 + 32) + 16 * (13 + 24))
    more = estimate.step_s(parts, 24, on, 0) - estimate.step_s(parts, 12, on, 0)
    assert more == pytest.approx(12 * (parameters + caches) / (7 / 8 * 819e9), rel=1e-6)
    slow = estimate.step_s(parts, 24, on, 1e-3) - estimate.step_s(parts, 24, on, 0)
    # 24 tokens in 4 layers; prompts and samples forward, and backward for twice as long.
    executed = (24 + 2 * 3) * 4 * estimate._INSTRUCTIONS + 24 * estimate._BESIDE_LAYERS
    assert slow == pytest.approx(executed * 1e-3)


def bounds(**changes):
    return estimate.memory(parts_of(policy__embed_dim=80, **changes))


def test_memory_follows_from_what_is_kept():
    parts = parts_of(policy__embed_dim=80, policy__remat="full")
    state = init_state(parts.decoder, parts.optimizer, 0)
    kept = sum(x.nbytes for x in jax.tree.leaves(state))
    gradient = sum(x.nbytes for x in jax.tree.leaves(state.params))
    # 4 prompts of 32, 16 samples of 24; the inputs, 80 wide, of 2 periods of 2 layers.
    rows = 4 * 32 + 16 * 24
    full = bounds(policy__remat="full")[0]
    assert full == kept + gradient + 4 * rows * 2 * 80
    # Products: 6 queries, 2 keys and 2 values, 8 wide; the output; gate and up.
    dots = bounds(policy__remat="dots")[0]
    assert dots - full == 4 * rows * 4 * (10 * 8 + 80 + 2 * 96)
    # Weights of 6 heads: samples see 32 and 24 tokens, in local layers 13 and 24.
    pairs = 4 * (4 * 32 * 32) + 2 * 16 * 24 * (32 + 24 + 13 + 24)
    assert bounds(policy__remat=None)[0] - dots == 4 * 6 * pairs
    # Half the samples at once keep half of their rows.
    half = bounds(policy__remat="full", micro_batch__samples=2)[0]
    assert full - half == 4 * (16 * 24 // 2) * 2 * 80
    for remat in ("full", "dots", None):
        least, about = bounds(policy__remat=remat)
        assert least < about


def test_memory_of_sampling_is_that_of_its_caches():
    # So many tokens that the caches of 16 samples are more than what an update keeps.
    changes = {"policy__remat": "full", "micro_batch__samples": 1, "micro_batch__problems": 1}
    short, long = (bounds(sampling__max_response_tokens=n, **changes) for n in (8192, 16384))
    # Two global layers, 2 x 2 heads' keys and values, 8 wide.
    assert long[0] - short[0] == 8192 * 16 * 2 * (2 * 2 * 8) * 4


def test_devices_that_only_sample_keep_nothing_of_the_training():
    changes = {"sampling__max_response_tokens": 2**20, "policy__embed_dim": 80}
    changes |= {"policy__remat": "full", "micro_batch__samples": 1, "micro_batch__problems": 1}
    apart = {"mesh__sampling": 1, "pipeline": 1, "objective__importance_cap": 2.0}

    def memory_and_kept(**more):
        parts = build_policy(
            tiny_config(**SIZES | changes | more), None, devices("v5p:2x2x1")[: 1 + bool(more)]
        )
        state = init_state(Decoder(parts.decoder.config), parts.optimizer, 0)
        return estimate.memory(parts)[0], sum(x.nbytes for x in jax.tree.leaves(state))

    (together, kept), (alone, _) = memory_and_kept(), memory_and_kept(**apart)
    assert together - alone == kept


@pytest.mark.parametrize(
    ("topology", "remat", "flags"),
    [("v5e:8x16", "dots", ""), ("v5e:4x4", "full", " --config.policy.remat=full")],
)
def test_close_to_the_compiled_programs(topology, remat, flags):
    """Those of docs/plans.json: the largest memory of a device, and what it sends."""
    plans, config = (ROOT / "docs" / "plans.json").read_text(), gemma2_2b_math.get_config()
    compiled = json.loads(plans)[f"gemma2_2b_math {topology}{flags}"]
    config.policy.remat = remat
    parts = build_policy(config, None, devices(topology))
    phases = compiled["phases"]
    peak = max(phase["peak_bytes"] for phase in phases.values())
    least, about = estimate.memory(parts)
    assert compiled["kept_bytes"] < least <= peak
    assert 0.8 < about / peak < 1.25
    for name, within in (("sampling", 0.005), ("update", 0.15)):
        total = sum(e.sent_bytes for e in estimate.exchanges(name, parts, 1024))
        assert total == pytest.approx(sum(phases[name]["sent_bytes"].values()), rel=within)
