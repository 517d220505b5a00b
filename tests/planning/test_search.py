"""The search: which settings are tried, in which order, and what it prints."""

import collections
import json
import math
import shlex

import pytest

from passk_jax.errors import ConfigError
from passk_jax.planning import estimate, search, words
from passk_jax.planning.step import changed
from passk_jax.policy.sharding import LOGICAL_AXES
from passk_jax.run import overrides
from passk_jax.run.parts import build_policy
from tests.planning.tpu import devices
from tests.tiny import TINY, command, run, tiny_config

TINY_ON_TPU = {"policy__vocab_size": 259, "policy__dtype": "bfloat16"}


def settings(parts):
    """What makes two runs the same to a compiler: among others, which part each device has."""
    has = []
    for layout in (parts.decoder.layout, parts.sampling_decoder.layout):
        for name in LOGICAL_AXES:
            parts_of = layout.sharding([name], [64]).devices_indices_map((64,))
            has.append(str([parts_of[device] for device in layout.mesh.devices.flat]))
    remat, buckets = parts.decoder.config.remat, parts.sampling.response_buckets
    return tuple(has), parts.config.prompts_per_step, remat, buckets


def test_candidates():
    config = tiny_config(**TINY_ON_TPU, mesh__model=8)
    found = list(search.candidates(config, devices("v5e:2x4")))
    assert found[0].change == {} and all(one.change for one in found[1:])
    assert all(math.prod(one.kind[:3]) == 8 for one in found)
    counts = collections.Counter(settings(one.parts) for one in found)
    assert set(counts.values()) == {1}
    # Data and fsdp split 2, 4, 8 or 16 problems evenly; model takes the rest of the 8 devices.
    splits = [(data, fsdp) for data in (1, 2, 4, 8) for fsdp in (1, 2, 4, 8)]
    assert {one.kind for one in found} == {
        (data, fsdp, 8 // (data * fsdp), problems)
        for data, fsdp in splits
        for problems in (2, 4, 8, 16)
        if data * fsdp <= min(problems, 8)
        if data > 1 or fsdp == 1  # 1 x 4 splits all that 4 x 1 does, whatever splits parameters
    }
    for one in found:
        # Evaluation takes 5 problems at once, or as many as the mesh can split.
        shares = one.kind[0] * one.kind[1]
        batch = one.change.get("evaluation.prompts_per_batch", 5)
        assert batch % shares == 0 and 5 <= batch < 5 + shares
        # Completions of at most 10 tokens.
        assert one.parts.sampling.response_buckets in {(), (5,), (2, 5, 7)}
    assert len({settings(one.parts)[2:] for one in found}) == 3 * 3
    for one in found[::10]:  # they are built as the flags say
        built = build_policy(changed(config, one.change), None, devices("v5e:2x4"))
        assert settings(built) == settings(one.parts)


def test_where_devices_only_sample_they_share_evaluations_batch():
    apart = {"mesh__sampling": 1, "pipeline": 1, "objective__importance_cap": 2.0}
    sizes = {"prompts_per_step": 6, "warm_start__batch_size": 6}
    config = tiny_config(**TINY_ON_TPU, **apart, **sizes)
    found = list(search.candidates(config, devices("v5p:2x2x1")))
    # Three train; the one that samples takes 5 problems of an evaluation at once.
    assert {one.kind[0] * one.kind[1] for one in found} == {3}
    assert {one.kind[3] for one in found} == {3, 6, 12, 24}
    assert not any("evaluation.prompts_per_batch" in one.change for one in found)


def test_a_config_that_uses_what_is_tried():
    config = tiny_config(**TINY_ON_TPU, sampling__response_buckets=(5,), prompts_per_step=3)
    config.sharding.training.embed = ("data", "fsdp")
    found = list(search.candidates(config, devices("v5e:1x1")))
    # 3 problems have no half; buckets (5,) are there already.
    assert {one.kind[3] for one in found} == {3, 6, 12}
    assert len(found) == 3 * 3 * 3
    assert not any("embed" in key for one in found for key in one.change)  # nothing to split
    assert [one.change for one in found if one.change.keys() == {"policy.remat"}]


def planned(monkeypatch, fits=lambda change: True):
    """Replaces plans by ones whose step takes as many seconds as they are after the first."""
    devices("v5e:1x1")  # skips the test where there is no libtpu
    tried = []

    def plan(config, topology, **options):
        assert options.pop("suggest") is False
        tried.append(config)
        parts = build_policy(config, None, devices(topology))
        return {
            "fits": fits(config),
            "phases": {"update": {"peak_bytes": 2**30}},
            "mesh": dict(parts.decoder.layout.mesh.shape),
            "problems": config.prompts_per_step,
            "samples": config.samples_per_prompt,
            "chips": 4,
            "usd_per_chip_hour": 1.5,
            "step_with_overheads_s": float(len(tried)),
        }

    monkeypatch.setattr(search, "plan", plan)
    return tried


def test_small_models_are_not_split(monkeypatch, capsys):
    # An exchange waits for some us, and all that a tiny model computes takes less.
    tried = planned(monkeypatch)
    result = search.search(tiny_config(**TINY_ON_TPU, mesh__model=4), "v5e:2x2", 3)
    assert [one.prompts_per_step for one in tried] == [4, 4, 16, 4]  # own, others, in turn
    best = [row["mesh"] for row in result["found"]]
    assert best[0] == {"data": 1, "fsdp": 1, "model": 4}
    assert tried[1].mesh == tried[2].mesh and tried[1].mesh.model == 1
    # Steps of 1 s of the config, then 2, 3, 4 s: 4 x 4 samples and once 16 x 4 on 4 chips.
    rates = [row["samples_per_chip_s"] for row in result["found"]]
    assert rates == [16 / 4 / 1, 64 / 4 / 3, 16 / 4 / 2, 16 / 4 / 4]
    # 1,000 steps of 3 s on 4 chips at 1.50 dollars an hour.
    assert result["found"][1]["usd_per_1000_steps"] == pytest.approx(1000 * 3 * 4 / 3600 * 1.5)
    kinds = [(*row["mesh"].values(), row["problems"]) for row in result["found"]]
    assert len(set(kinds)) == 4
    said = capsys.readouterr().err
    assert said.count("trying ") == 4 and "trying the config itself" in said


def test_large_models_are_split(monkeypatch):
    # A token reads 1.7 GB: 2.3 ms, and a quarter of it where 4 chips share the model. Some 40 sums
    # over 2 links there and back, at 8/3 us each, take 0.4 ms of what is won.
    wide = {
        "policy__embed_dim": 4096,
        "policy__hidden_dim": 16384,
        "policy__num_heads": 4,
        "policy__num_kv_heads": 4,
    }
    tried = planned(monkeypatch)
    config = tiny_config(**TINY_ON_TPU | wide, mesh__model=2, evaluation__prompts_per_batch=4)
    search.search(config, "v5e:2x2", 1)
    assert tried[1].mesh.model == 4 and tried[1].prompts_per_step == 4


def test_what_does_not_fit_makes_room_for_the_next(monkeypatch):
    tried = planned(monkeypatch, lambda config: config.policy.remat == "full")
    config = tiny_config(**TINY_ON_TPU, mesh__model=4)
    result = search.search(config, "v5e:2x2", 1)
    assert len(tried) == 3  # the config, and twice as many as are wanted
    assert not any(row["fits"] for row in result["found"])
    tried = planned(monkeypatch, lambda config: config.policy.remat is not None)
    result = search.search(config, "v5e:2x2", 4)
    # The same update is not compiled again with other buckets.
    updates = [(*c.mesh.values(), c.prompts_per_step, c.policy.remat, c.sharding.training.embed)
               for c in tried[1:]]  # fmt: skip
    assert len(set(updates)) == len(updates)
    fitting = [row["fits"] for row in result["found"][1:]]
    assert fitting == sorted(fitting, reverse=True) and any(fitting)


def test_what_is_far_too_large_is_not_tried(monkeypatch):
    planned(monkeypatch)
    config = tiny_config(**TINY_ON_TPU)
    before = search.search(config, "v5e:1x1", 1)
    # A billion tokens for each of at least 8 samples, and 64 bytes of keys and values each.
    config.sampling.max_response_tokens = 2**30
    after = search.search(config, "v5e:1x1", 1)
    assert before["too_large"] == 0 < after["too_large"] == after["candidates"]
    assert len(after["found"]) == 1


@pytest.mark.parametrize(
    ("topology", "most", "message"),
    [
        ("local", 2, "--search with --topology=local: only of a TPU slice"),
        ("v5e:2x2", 0, "--search = 0: must be at least 1"),
        ("v5e:3x5", 1, "a slice of v5e has 2 sizes"),
    ],
)
def test_what_cannot_be_searched(topology, most, message):
    with pytest.raises(ConfigError, match=message):
        search.search(tiny_config(**TINY_ON_TPU), topology, most)


def test_the_flags_of_a_change_make_it():
    change = {
        "mesh.fsdp": 2,
        "sharding.training.embed": ("fsdp", "data"),
        "policy.remat": None,
        "sampling.response_buckets": (2, 5),
        "prompts_per_step": 8,
    }
    config = tiny_config()
    _, pairs = overrides.split(shlex.split(words.as_flags(change)))
    overrides.apply(config, pairs)
    assert config.to_dict() == changed(tiny_config(), change).to_dict()


def test_the_table():
    row = {
        "mesh": {"data": 4, "fsdp": 1, "model": 2}, "problems": 4, "remat": None, "change": {},
        "peak_bytes": 2**29, "estimate_s": 1.25, "fits": True, "step_with_overheads_s": 1.5,
        "samples_per_chip_s": 0.125, "usd_per_1000_steps": 4321.4,
    }  # fmt: skip
    other = row | {"problems": 8, "change": {"mesh.model": 2}, "usd_per_1000_steps": None}
    large = row | {"fits": False, "change": {"policy.remat": None}, "estimate_s": 0.00012345}
    result = {"topology": "v5e:2x4", "candidates": 1234, "too_large": 56}
    lines = words.describe_search(result | {"found": [row, other, large]}).splitlines()
    assert lines[0].startswith("v5e:2x4: 1,234 candidates, 56 of them too large")
    assert lines[3].split() == "config 4 x 1 x 2 4 None 0.50 1.25 1.50 0.125 4,321".split()
    assert lines[4].split() == "1 4 x 1 x 2 8 None 0.50 1.25 1.50 0.125 unknown".split()
    assert lines[5].split() == "2 4 x 1 x 2 4 None 0.50 0.000123 does not fit".split()
    assert "  1: --config.mesh.model=2" in lines and "  2: --config.policy.remat=None" in lines
    assert lines[-1] == "Other numbers of problems in a step make another experiment."
    assert "experiment" not in words.describe_search(result | {"found": [row, large]})


@pytest.mark.slow
def test_the_command(tmp_path):
    pytest.importorskip("libtpu", reason="libtpu compiles for TPUs; it is not installed")
    own = TINY_ON_TPU | {"mesh__model": 2, "evaluation__prompts_per_batch": 4}
    own["sampling__max_response_tokens"] = 2  # few buckets, which take long to compile
    made = TINY | {key.replace("__", "."): value for key, value in own.items()}
    flags = [f"--config.{key}={value}" for key, value in made.items()]
    args = command("passk_jax.plan", "--config", "configs/arithmetic.py", *flags, workdir="")[:-2]
    args += ["--topology", "v5e:2x2", "--search=2"]
    result = run([*args, "--json", str(tmp_path / "search.json")])
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("compiling update for v5e:2x2") == 3
    found = json.loads((tmp_path / "search.json").read_text())
    assert [row["problems"] for row in found["found"]].count(4) == 2
    assert result.stdout == words.describe_search(found) + "\n"
    for row in found["found"]:
        assert row["fits"]
        config = changed(tiny_config(**own), row["change"])
        least, _ = estimate.memory(build_policy(config, None, devices("v5e:2x2")))
        assert least <= row["peak_bytes"]
    config, best, other = found["found"]
    assert best["samples_per_chip_s"] > other["samples_per_chip_s"] > 0
    assert best["estimate_s"] / best["problems"] == min(
        row["estimate_s"] / row["problems"] for row in found["found"]
    )
    result = run([*args, "--calibrate", "metrics.jsonl"])
    assert result.returncode == 2 and "--search and --calibrate" in result.stderr
