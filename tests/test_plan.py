"""Plans: what they count against what can be counted by hand, and what does not fit."""

import dataclasses
import json
from unittest import mock

import jax
import numpy as np
import pytest

from passk_jax.errors import ConfigError
from passk_jax.learner.train_state import init_state
from passk_jax.planning import calibration, chips, compiling, step, words
from passk_jax.planning.collectives import Collective
from passk_jax.planning.step import plan
from passk_jax.planning.words import describe
from passk_jax.planning.work import Work
from passk_jax.run.parts import build_policy
from tests.planning.tpu import devices
from tests.tiny import ROOT, command, run, tiny_config

WIDE = {
    "policy__vocab_size": 512,
    "policy__embed_dim": 128,
    "policy__hidden_dim": 512,
    "policy__sliding_window": 0,
    "sampling__max_prompt_tokens": 33,
    "sampling__max_response_tokens": 16,
}


def wide_config(**changes):
    return tiny_config(**WIDE | changes)


@pytest.fixture(scope="module")
def local_plan():
    return plan(wide_config(), "local")


def expected_flops(name, parts):
    """2 x parameters x tokens forward, twice that backward; one chunk of logits is made once."""
    c = parts.decoder.config
    head = c.vocab_size * c.embed_dim
    attention = c.embed_dim * c.head_dim * 2 * (c.num_heads + c.num_kv_heads)
    layers = c.num_layers * (attention + 3 * c.embed_dim * c.hidden_dim)
    prompts, responses = 4 * 32, 16 * 16
    if name == "update":
        return 2 * 3 * (layers * (prompts + responses) + head * responses)
    return 2 * (layers * (prompts + responses) + head * responses)


def test_operations_are_what_parameters_and_tokens_make_them(local_plan):
    # Attention adds little at 33 + 16 tokens. One pass more or less would be a quarter.
    for name, phase in local_plan["phases"].items():
        expected = expected_flops(name, build_policy(wide_config(), None))
        assert 1 < phase["matrix_flops"] / expected < 1.03


def test_shorter_completions_take_less_sampling_alone(local_plan):
    half = plan(wide_config(sampling__response_buckets=(8,)), "local", response_tokens=4)
    ratio = {
        name: half["phases"][name]["matrix_flops"] / local_plan["phases"][name]["matrix_flops"]
        for name in ("sampling", "update")
    }
    # Of 4 problems with 4 samples: 4 x 32 prompt tokens and 16 x 4 instead of 16 x 16 tokens.
    assert 0.4 < ratio["sampling"] < 0.6
    assert ratio["update"] == pytest.approx(1.0, rel=1e-3)


def test_memory_that_is_kept_is_that_of_the_state(local_plan):
    parts = build_policy(wide_config(), None)
    state = init_state(parts.decoder, parts.optimizer, 0)
    assert local_plan["kept_bytes"] == sum(x.nbytes for x in jax.tree.leaves(state))
    assert local_plan["parameters"] == sum(x.size for x in jax.tree.leaves(state.params))
    # 2 layers of keys and values of 1 head, 8 wide, in float32: 32 prompt tokens (the last is fed
    # by the loop) of 4 problems; 16 tokens of 16 samples.
    token = 2 * 2 * 8 * 4
    assert local_plan["prompt_cache_bytes"] == token * 32 * 4
    assert local_plan["response_cache_bytes"] == token * 16 * 16
    assert all(
        phase["peak_bytes"] > local_plan["kept_bytes"] for phase in local_plan["phases"].values()
    )


@pytest.mark.slow
def test_a_reference_is_planned_where_there_is_one(local_plan):
    result = plan(wide_config(objective__kl_coefficient=0.1), "local")
    assert list(result["phases"]) == ["sampling", "reference", "update"]
    assert result["reference_bytes"] == local_plan["parameters_bytes"]
    assert local_plan["reference_bytes"] == 0


@pytest.mark.slow
def test_several_updates_are_planned_as_often_as_they_run(local_plan):
    result = plan(wide_config(objective__epochs=2, objective__minibatches=2), "local")
    assert list(result["phases"]) == ["sampling", "old policy", "update"]
    once, four = (found["phases"]["update"] for found in (local_plan, result))
    # Two epochs: each sample twice, however it is split. The optimizer runs four times.
    assert four["matrix_flops"] == 2 * once["matrix_flops"]
    assert four["parts"]["optimizer"][1] == 4 * once["parts"]["optimizer"][1]
    # Forward alone is a third of the products, of the layers and of one chunk of logits.
    forward = result["phases"]["old policy"]["parts"]
    assert 3 * forward["matrices"][0] == once["parts"]["matrices"][0]
    assert 3 * forward["logits"][0] == once["parts"]["logits"][0]


def test_the_words_have_the_numbers(local_plan):
    words = describe(local_plan)
    assert f"{local_plan['parameters']:,} parameters" in words
    assert "4 problems x 4 samples, prompts of 33 and completions of 16 tokens" in words
    assert "It compiles." in words
    assert all(part in words for part in ("tokens", "matrices", "attention", "optimizer"))


def test_seconds_of_parts_and_exchanges(monkeypatch):
    # On v5e, 197 TFLOP/s and 819 GB/s: the first part computes 2 s and reads 1 s, the other reads
    # 3 s. Of 16 chips in a row of 4 x 4, 4 neighbours send over one link of 50 GB/s: 0.5 s.
    works = {"a": Work(2 * 197e12, 819e9), "b": Work(0, 3 * 819e9)}
    row = tuple(tuple(range(i, i + 4)) for i in range(0, 16, 4))
    monkeypatch.setattr(step.work, "of_phase", lambda *args: works)
    exchanges = [Collective("all-gather", row, 25e9, None)]
    monkeypatch.setattr(step, "collectives", lambda *args: exchanges)
    monkeypatch.setattr(step, "instructions", lambda *args: 1e6)

    class Device:
        def __init__(self, i):
            self.coords = (i // 4, i % 4, 0)

    parts = build_policy(wide_config(), None)
    mesh = mock.Mock(devices=np.array([Device(i) for i in range(16)]))
    object.__setattr__(parts.sampling_decoder.layout, "mesh", mesh)
    cost = step._cost("sampling", "", parts, 16, chips.parse_slice("v5e:4x4"))
    assert (cost["compute_s"], cost["memory_s"], cost["interconnect_s"]) == (2, 4, 0.5)
    assert (cost["overlapped_s"], cost["sequential_s"], cost["limit"]) == (4, 2 + 3 + 0.5, "memory")
    assert cost["sent_bytes"] == {"all-gather": 25e9}
    # HBM at 7/8 of its peak, links at 560/680, and a million instructions of half a microsecond.
    assert cost["with_overheads_s"] == pytest.approx(2 + 3 * 8 / 7 + 0.5 * 680 / 560 + 0.5)
    # A small sum waits for 3 hops of 8/3 us twice, however few bytes it has.
    exchanges[:] = [Collective("all-reduce", row, 1000 * 64, None, times=1000)]
    small = step._cost("sampling", "", parts, 16, chips.parse_slice("v5e:4x4"))
    assert small["with_overheads_s"] == pytest.approx(2 + 3 * 8 / 7 + 1000 * 16e-6 + 0.5)
    assert (small["exchanges"], small["instructions"]) == (1000, 1e6)


@pytest.mark.slow
def test_on_a_slice_of_tpus(capsys):
    pytest.importorskip("libtpu", reason="libtpu compiles for TPUs; it is not installed")
    config = wide_config(
        policy__dtype="bfloat16",
        mesh__data=2,
        mesh__fsdp=1,
        mesh__model=2,
        policy__num_kv_heads=2,
        evaluation__prompts_per_batch=4,
    )
    result = plan(config, "v5e:2x2")
    assert result["devices"] == 4 and result["mesh"] == {"data": 2, "fsdp": 1, "model": 2}
    for phase in result["phases"].values():
        # The axis "model" sums activations, and "data" gradients.
        assert phase["sent_bytes"]["all-reduce"] > 0
        assert 0 < phase["overlapped_s"] <= phase["sequential_s"] < phase["with_overheads_s"]
    words = describe(result)
    assert "It fits. A step takes about" in words
    assert "US dollars at 1.20 a chip-hour, the list price on demand in the US in 2026-09" in words
    said = capsys.readouterr().err
    assert said == "compiling sampling for v5e:2x2 ...\ncompiling update for v5e:2x2 ...\n"


APART = {
    "policy__dtype": "bfloat16",
    "policy__num_kv_heads": 2,
    "mesh__model": 2,
    "mesh__sampling": 2,
    "pipeline": 1,
    "objective__importance_cap": 2.0,
    "evaluation__prompts_per_batch": 4,
}


@pytest.mark.slow
def test_devices_that_only_sample_are_planned_beside_those_that_train():
    pytest.importorskip("libtpu", reason="libtpu compiles for TPUs; it is not installed")
    result = plan(wide_config(**APART), "v5p:2x2x1")
    together = plan(wide_config(**APART | {"mesh__sampling": None}), "v5p:2x2x1")
    assert (result["devices"], result["sampling_devices"], result["chips"]) == (2, 2, 4)
    assert "2 devices, mesh data 1 x fsdp 1 x model 2, and 2 that only sample;" in describe(result)
    for bound in ("overlapped_s", "sequential_s", "with_overheads_s"):
        sampling, update = (result["phases"][name][bound] for name in ("sampling", "update"))
        assert result[f"step_{bound}"] == max(sampling, update)
    # Twice the samples on each device, and neither parameters nor moments of the optimizer.
    of = lambda one: one["phases"]["sampling"]  # noqa: E731
    assert of(result)["matrix_flops"] == pytest.approx(2 * of(together)["matrix_flops"])
    alone = of(together)["peak_bytes"] - together["kept_bytes"]
    assert alone < of(result)["peak_bytes"] < 2.5 * alone


def test_on_some_tpus_a_program_needs_all_devices():
    with pytest.raises(ConfigError, match=r"mesh.sampling = 2: a program on TPU v5 lite runs on"):
        build_policy(wide_config(**APART), None, devices("v5e:2x2"))
    apart = build_policy(wide_config(**APART), None, devices("v5p:2x2x1"))
    places = [x.coords[1] for x in apart.sampling_decoder.layout.mesh.devices.flat]
    assert places == [1, 1] and apart.samples_apart


def test_a_run_says_what_an_instruction_takes(tmp_path):
    """Sampling took 3 s, a median, and not the 2 of the plan: 1 s more for a million of them."""
    phase = {"with_overheads_s": 2.0, "instructions": 1e6}
    result = {"step_with_overheads_s": 9.0, "phases": {"sampling": phase}}
    path = tmp_path / "metrics.jsonl"
    times = [(60.0, 9.0), (3.0, 0.5), (2.9, 0.6)]  # the first one compiles
    path.write_text(
        "".join(
            json.dumps({"step": i, "train/sampling_time_s": s, "train/update_time_s": u}) + "\n"
            for i, (s, u) in enumerate(times)
        )
    )
    found = calibration.measured(result, path, 0.5e-6)
    assert found == {"sampling_s": 3.0, "update_s": 0.6, "instruction_us": pytest.approx(1.5)}
    faster = {"sampling": phase | {"with_overheads_s": 8.0}}
    assert calibration.measured(result | {"phases": faster}, path, 0.5e-6)["instruction_us"] == 0
    path.write_text('{"step": 0}\n')
    with pytest.raises(ConfigError, match=r"--calibrate = .*no row has train/sampling_time_s and"):
        calibration.measured(result, path, 0.5e-6)
    path.write_text("x\n")
    with pytest.raises(ConfigError, match=r"--calibrate = .*line 1: not JSON"):
        calibration.measured(result, path, 0.5e-6)
    with pytest.raises(ConfigError, match="needs a plan that fits a slice"):
        calibration.measured({}, path, 0.5e-6)


def test_the_price_of_a_thousand_steps():
    """128 chips for 1,000 steps of 2.25 to 3 s: 128 x 2,250 to 3,000 / 3,600 hours."""
    step = {"step_overlapped_s": 2.25, "step_sequential_s": 2.5, "step_with_overheads_s": 3.0}
    step["chips"] = 128
    listed = words._price(step | {"usd_per_chip_hour": 1.2, "price_of": "2026-09"})
    assert listed == (
        "1,000 steps take 80 to 107 chip-hours: 96 to 128 US dollars at 1.20 a chip-hour, the list "
        "price on demand in the US in 2026-09."
    )
    own = words._price(step | {"usd_per_chip_hour": 0.5, "price_of": None})
    assert own.endswith(": 40 to 53 US dollars at 0.50 a chip-hour.")
    unknown = words._price(step | {"usd_per_chip_hour": None, "price_of": None})
    assert unknown.endswith("107 chip-hours. No list price is known: --usd_per_chip_hour says what "
                            "they cost.")  # fmt: skip


def small_chip(monkeypatch, hbm_bytes, compile_phase):
    chip = dataclasses.replace(chips.CHIPS["v5e"], hbm_bytes=hbm_bytes)
    monkeypatch.setitem(chips.CHIPS, "v5e", chip)
    # The slice is of devices that are here: what is compiled is the same.
    monkeypatch.setattr(compiling, "slice_devices", lambda on: jax.devices())
    monkeypatch.setattr(compiling, "compile_phase", compile_phase)
    monkeypatch.setattr(step, "_cost", lambda *args: {})


def test_what_does_not_fit_is_said_with_the_smallest_change_that_would(monkeypatch):
    def compile_phase(name, parts):  # as large as its remat policy and its micro-batch make it
        size = 4000 if parts.config.policy.remat is None else 3000
        size = size // 4 * (parts.config.micro_batch.samples or 4)
        return compiling.Compiled(mock.Mock(), size)

    monkeypatch.setattr(compiling, "phase_names", lambda parts: ["update"])
    config = wide_config(policy__remat=None)
    for hbm_bytes, change in (
        (3500, {"policy.remat": "full"}),
        (
            2000,
            {
                "policy.remat": "full",
                "sharding.training.embed": ("fsdp", "data"),
                "micro_batch.samples": 2,
            },
        ),
    ):
        small_chip(monkeypatch, hbm_bytes, compile_phase)
        result = plan(config, "v5e:1x1")
        assert not result["fits"] and result["suggestion"] == change
        words = describe(result)
        assert "It does NOT fit: update." in words
        assert "It would with --config.policy.remat='full'" in words
    small_chip(monkeypatch, 4000, compile_phase)
    assert plan(config, "v5e:1x1")["fits"]


def test_nothing_helps_on_a_chip_that_is_far_too_small(monkeypatch):
    small_chip(monkeypatch, 1000, lambda *args: compiling.Compiled(None, 2000))
    result = plan(wide_config(), "v5e:1x1")
    assert result["suggestion"] is None
    assert "Nor with any of the changes tried" in describe(result)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("RESOURCE_EXHAUSTED: ... Used 68.90G of 15.75G hbm. Exceeded", int(68.9 * 2**30)),
        ("RESOURCE_EXHAUSTED: Allocation (size=123456) would exceed memory (size=17)", 123456),
    ],
)
def test_what_the_compiler_says_of_a_program_that_does_not_fit(text, size):
    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError(text)

    class Function:
        def lower(self):
            return Lowered()

    assert compiling._compile(Function()) == compiling.Compiled(None, size)


@pytest.mark.parametrize(
    ("topology", "changes", "error", "message"),
    [
        ("v9:2x2", {}, ValueError, "topology 'v9:2x2'.*known chips"),
        ("v5e:2x2x2", {}, ValueError, "a slice of v5e has 2 sizes"),
        ("local", {"policy__vocab_size": None}, ConfigError, "vocab_size = None: without the"),
        ("local", {"mesh__model": 3}, ConfigError, "mesh.model = 3"),
    ],
)
def test_what_cannot_be_planned(topology, changes, error, message):
    with pytest.raises(error, match=message):
        plan(wide_config(**changes), topology)


def test_more_tokens_than_the_config_allows():
    with pytest.raises(ConfigError, match=r"--response_tokens = 17: between 1 and .* = 16"):
        plan(wide_config(), "local", response_tokens=17)


@pytest.mark.slow
def test_the_command(tmp_path):
    flags = ["--config", "configs/arithmetic.py", "--config.policy.vocab_size=259"]
    args = command("passk_jax.plan", *flags, "--topology", "local", workdir=tmp_path)[:-2]
    result = run([*args, "--json", str(tmp_path / "plan.json")])
    assert result.returncode == 0, result.stderr
    assert "It compiles." in result.stdout
    assert json.loads((tmp_path / "plan.json").read_text())["devices"] == 1
    ahead = ["--config.pipeline=1", "--config.objective.importance_cap=2.0"]
    result = run([*args, *ahead, "--calibrate", "metrics.jsonl"])
    assert result.returncode == 2 and "--calibrate: with config.pipeline = 1" in result.stderr
    result = run([*args[:-1], "v5e:3x5"])
    assert result.returncode == 2 and result.stderr.startswith("error: topology 'v5e:3x5'")
    assert str(ROOT) not in result.stderr
