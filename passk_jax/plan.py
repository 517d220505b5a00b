"""Says whether a config fits a TPU slice, and about how long a step takes, without the TPU.

    python -m passk_jax.plan --config configs/gemma2_2b_math.py --topology v5e:8x16

Compiles the real programs of a step for the slice, and counts what they do. Exit status 3: it does
not fit; what is printed then names the smallest change found that does. `--topology local` is for
the devices that are here.
"""

import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from passk_jax.errors import ConfigError
from passk_jax.planning import compiling
from passk_jax.planning.chips import Slice, parse_slice
from passk_jax.planning.cost import analyze
from passk_jax.planning.roofline import roofline
from passk_jax.policy.sharding import MESH_AXES
from passk_jax.run import command
from passk_jax.run.parts import Parts as Programs
from passk_jax.run.parts import build_policy as build_programs

_GIB = 2**30
DOES_NOT_FIT = 3


def plan(
    config: ConfigDict, topology: str, *, response_tokens: int | None = None, suggest: bool = True
) -> dict[str, Any]:
    """Compiles a step for a slice and counts what it takes.

    Args:
      config: of the run. Neither weights nor tokenizer nor data are needed.
      topology: such as "v5e:8x16", or "local".
      response_tokens: of the longest completion of a step, which is how long sampling goes on;
        `None` for all that the config allows.
      suggest: whether to look for a change that makes it fit where it does not.

    Returns:
      What `describe` puts in words; memory and all else for one device.

    Raises:
      ConfigError: the config cannot be run, on this slice.
      ValueError: the topology is none.
      RuntimeError: libtpu is not installed.
    """
    limit = config.sampling.max_response_tokens
    tokens = limit if response_tokens is None else response_tokens
    if not 1 <= tokens <= limit:
        raise ConfigError(
            f"--response_tokens = {tokens}: between 1 and config.sampling.max_response_tokens = "
            f"{limit} are allowed"
        )
    on = None if topology == "local" else parse_slice(topology)
    devices = jax.devices() if on is None else compiling.slice_devices(on)
    programs = build_programs(config, None, devices)
    result = _settings(programs, topology, tokens) | _memory_kept(programs)
    result["chip_bytes"] = None if on is None else on.chip.hbm_bytes
    phases = {}
    for name, compile_phase in _phases(programs).items():
        compiled = compile_phase(programs)
        phases[name] = _memory(name, compiled, programs, on)
        if compiled.text is not None:
            phases[name] |= _cost(compiled.text, name, programs, tokens, on)
    result["phases"] = phases
    result["fits"] = all(phase["fits"] for phase in phases.values())
    if not result["fits"] and suggest:
        result["suggestion"] = _suggestion(config, devices, on, phases)
    if on is not None and all("sequential_s" in phase for phase in phases.values()):
        for bound in ("overlapped_s", "sequential_s"):
            result[f"step_{bound}"] = sum(phase[bound] for phase in phases.values())
    return result


def _phases(programs: Programs) -> dict[str, Callable[[Programs], compiling.Compiled]]:
    """The programs of a step."""
    phases = {"sampling": compiling.compile_sampling}
    if programs.objective.keeps_reference:
        phases["reference"] = compiling.compile_reference
    if programs.objective.updates_per_step > 1:
        phases["old policy"] = compiling.compile_old_policy
    return phases | {"update": compiling.compile_update}


def _settings(programs: Programs, topology: str, tokens: int) -> dict[str, Any]:
    config, mesh = programs.config, programs.decoder.layout.mesh
    return {
        "topology": topology,
        "devices": mesh.size,
        "mesh": {axis: mesh.shape[axis] for axis in MESH_AXES},
        "problems": config.prompts_per_step,
        "samples": config.samples_per_prompt,
        "prompt_tokens": config.sampling.max_prompt_tokens,
        "response_tokens": tokens,
        "max_response_tokens": config.sampling.max_response_tokens,
    }


def _memory_kept(programs: Programs) -> dict[str, Any]:
    """What lies on a device throughout a run, and what sampling adds."""
    state = compiling.training_state(programs)
    of_prompts, of_completions = compiling.cache_bytes(programs)
    params = jax.tree.leaves(state.params)
    return {
        "parameters": sum(x.size for x in params),
        "parameters_bytes": compiling.tree_bytes(state.params),
        "optimizer_bytes": compiling.tree_bytes(state.optimizer_state),
        "frozen_bytes": compiling.tree_bytes(state.frozen),
        "reference_bytes": compiling.tree_bytes(state.reference),
        "kept_bytes": compiling.tree_bytes(state),
        "sampling_parameters_bytes": compiling.tree_bytes(
            compiling.abstract_sampling_params(programs.sampling_decoder)
        ),
        "prompt_cache_bytes": of_prompts,
        "response_cache_bytes": of_completions,
    }


def _memory(
    name: str, compiled: compiling.Compiled, programs: Programs, on: Slice | None
) -> dict[str, Any]:
    """Memory at its fullest: what of the state a program is not given lies beside it."""
    state = compiling.training_state(programs)
    given = {
        "sampling": None,
        "reference": compiling.reference_variables(programs),
        "old policy": state.variables(),
        "update": state,
    }[name]
    beside = compiling.tree_bytes(state) - compiling.tree_bytes(given)
    peak = compiled.peak_bytes + beside
    fits = compiled.text is not None and (on is None or peak <= on.chip.hbm_bytes)
    return {"peak_bytes": peak, "fits": fits}


def _cost(
    text: str, name: str, programs: Programs, tokens: int, on: Slice | None
) -> dict[str, Any]:
    """What a program takes, as often as it runs in a step."""
    program = analyze(text, _trips(programs, tokens) if name == "sampling" else None)
    mesh = programs.decoder.layout.mesh
    times = programs.objective.updates_per_step if name == "update" else 1
    every = lambda counts: {kind: times * count for kind, count in counts.items()}  # noqa: E731
    cost = {
        "matrix_flops": times * program.matrix_flops,
        "expected_flops": _expected_flops(name, programs, tokens) / mesh.size,
        "hbm_bytes": times * program.hbm_bytes,
        "sent_bytes": every(program.sent_bytes),
        "uncounted": every(program.uncounted),
    }
    if on is None:
        return cost
    seconds = roofline(program, on, [device.coords for device in mesh.devices.flat])
    return cost | {
        "compute_s": times * seconds.compute_s,
        "memory_s": times * seconds.memory_s,
        "interconnect_s": times * seconds.interconnect_s,
        "overlapped_s": times * seconds.overlapped_s,
        "sequential_s": times * seconds.sequential_s,
        "limit": seconds.limit,
    }


def _trips(programs: Programs, tokens: int) -> dict[str, float]:
    """How often each of the sampler's loops runs, by the name that it gives them."""
    limits = [*programs.sampling.response_buckets, programs.sampling.max_response_tokens]
    trips = {}
    for start, limit in zip([0, *limits], limits, strict=False):
        trips[f"jit(sample)/until_{limit}/while"] = min(limit, max(tokens, start)) - start
    return trips


def _expected_flops(name: str, programs: Programs, tokens: int) -> float:
    """2 x parameters x tokens, forward; the update's backward is two more, and remat repeats it.

    With LoRA the backward is one more; its own matrices, and their products, are not counted.
    """
    config, c = programs.config, programs.decoder.config
    head = c.vocab_size * c.embed_dim
    attention = c.embed_dim * c.head_dim * 2 * (c.num_heads + c.num_kv_heads)
    layers = c.num_layers * (attention + 3 * c.embed_dim * c.hidden_dim)
    samples = config.prompts_per_step * config.samples_per_prompt
    prompts = config.prompts_per_step * (config.sampling.max_prompt_tokens - 1)
    if name == "sampling":
        return 2 * (layers * (prompts + samples * tokens) + head * samples * tokens)
    responses = samples * config.sampling.max_response_tokens
    lora = c.lora_rank is not None
    forward_only = name in ("reference", "old policy")
    passes = 1 if forward_only else (4 if c.remat == "full" else 3) - lora
    head_passes = 1 if forward_only else 4 - lora  # the logits are made twice in any case
    epochs = programs.objective.epochs if name == "update" else 1
    prompts *= config.samples_per_prompt // (
        config.micro_batch.samples or config.samples_per_prompt
    )
    return 2 * epochs * (passes * layers * (prompts + responses) + head_passes * head * responses)


def _suggestion(config, devices, on, phases) -> dict[str, Any] | None:
    """The first of some changes, small ones first, with which what did not fit does."""
    failing = {name for name, phase in phases.items() if not phase["fits"]}
    for change in _changes(config, failing):
        changed = config.copy_and_resolve_references()
        with changed.ignore_type(), changed.unlocked():
            changed.update_from_flattened_dict(change)
        try:
            programs = build_programs(changed, None, devices)
        except ConfigError:
            continue
        print(f"trying {_words(change)} ...", file=sys.stderr)
        if all(
            _memory(name, compile_phase(programs), programs, on)["fits"]
            for name, compile_phase in _phases(programs).items()
            if name in failing
        ):
            return change
    return None


def _changes(config: ConfigDict, failing: set[str]) -> Iterator[dict[str, Any]]:
    """Changes that cost little first: what is computed again, then smaller parts, then less."""
    problems, samples = config.prompts_per_step, config.samples_per_prompt
    change = {}
    if failing != {"sampling"}:
        if config.policy.remat != "full":
            change |= {"policy.remat": "full"}
            yield dict(change)
        everywhere = ("fsdp", "data")
        if config.sharding.training.embed != everywhere:
            change |= {"sharding.training.embed": everywhere}
            yield dict(change)
        part = config.micro_batch.samples or samples
        while part % 2 == 0:
            part //= 2
            change |= {"micro_batch.samples": part}
            yield dict(change)
        change |= {"optimizer.moment_dtype": "bfloat16"}
        yield dict(change)
    if config.sharding.training.embed is not None and config.sharding.sampling.embed is None:
        yield change | {"sharding.sampling.embed": config.sharding.training.embed}
    model = config.mesh.model
    while 0 < model < 16:
        model *= 2
        yield change | {"mesh.model": model}
    while problems % 2 == 0:
        problems //= 2
        yield change | {"prompts_per_step": problems}


def describe(result: dict[str, Any]) -> str:
    """A plan in words and a table, for one device."""
    mesh = " x ".join(f"{axis} {size}" for axis, size in result["mesh"].items())
    lines = [
        f"{result['topology']}: {result['devices']} devices, mesh {mesh}; {result['parameters']:,} "
        f"parameters; a step: {result['problems']} problems x {result['samples']} samples, prompts "
        f"of {result['prompt_tokens']} and completions of {result['response_tokens']} tokens",
        "",
        "memory of a device, GiB",
    ]
    rows = [
        ("parameters", result["parameters_bytes"]),
        ("parameters that LoRA adds to", result["frozen_bytes"]),
        ("optimizer", result["optimizer_bytes"]),
        ("reference", result["reference_bytes"]),
        ("parameters as sampled from", result["sampling_parameters_bytes"]),
        ("keys and values, prompts", result["prompt_cache_bytes"]),
        ("keys and values, completions", result["response_cache_bytes"]),
    ]
    rows += [
        (f"{name}, all together at its fullest", phase["peak_bytes"])
        for name, phase in result["phases"].items()
    ]
    lines += [f"  {name:42s} {size / _GIB:8.2f}" for name, size in rows if size]
    if result["chip_bytes"]:
        lines.append(f"  {'usable':42s} {result['chip_bytes'] / _GIB:8.2f}")
    lines += ["", *_cost_lines(result["phases"])]
    if not result["fits"]:
        names = [name for name, phase in result["phases"].items() if not phase["fits"]]
        lines.append(f"It does NOT fit: {', '.join(names)}.")
        if result.get("suggestion"):
            lines.append(f"It would with {_words(result['suggestion'])}")
        elif "suggestion" in result:
            lines.append("Nor with any of the changes tried: take a larger slice.")
    elif "step_sequential_s" in result:
        lines.append(
            f"It fits. A step takes at least {result['step_overlapped_s']:.2f} s if computation, "
            f"memory and interconnect overlap completely, {result['step_sequential_s']:.2f} s if "
            "nothing does; scoring and what the host does come on top."
        )
    else:
        lines.append("It compiles.")
    return "\n".join(lines)


def _cost_lines(phases: dict[str, Any]) -> list[str]:
    lines = [
        f"{'a step of a device':20s} {'TFLOP':>8s} {'expected':>8s} {'GB HBM':>8s} {'GB sent':>8s} "
        f"{'compute':>8s} {'memory':>8s} {'links':>8s}   limited by"
    ]
    for name, phase in phases.items():
        if "matrix_flops" not in phase:
            continue
        numbers = [
            phase["matrix_flops"] / 1e12,
            phase["expected_flops"] / 1e12,
            phase["hbm_bytes"] / 1e9,
            sum(phase["sent_bytes"].values()) / 1e9,
        ]
        line = f"{name:20s} " + " ".join(f"{number:8.2f}" for number in numbers)
        if "limit" in phase:
            seconds = [phase["compute_s"], phase["memory_s"], phase["interconnect_s"]]
            line += " " + " ".join(f"{number:6.2f} s" for number in seconds)
            line += f"   {phase['limit']}"
        lines.append(line)
        sent = sorted(phase["sent_bytes"].items(), key=lambda pair: -pair[1])
        if sent:
            words = ", ".join(f"{kind} {size / 1e9:.2f}" for kind, size in sent)
            lines.append(f"{'':20s} GB sent: {words}")
        if phase["uncounted"]:
            words = ", ".join(f"{name} x {count:g}" for name, count in phase["uncounted"].items())
            lines.append(f"{'':20s} operations not counted: {words}")
    return [*lines, ""]


def _words(change: dict[str, Any]) -> str:
    return " ".join(f"--config.{name}={value!r}" for name, value in change.items())


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    if _TOPOLOGY.value != "local":
        jax.config.update("jax_platforms", "cpu")  # a TPU that is here is not asked
    try:
        result = plan(_CONFIG.value, _TOPOLOGY.value, response_tokens=_RESPONSE_TOKENS.value)
    except (ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(describe(result))
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["fits"] else DOES_NOT_FIT


if __name__ == "__main__":
    _CONFIG = config_flags.DEFINE_config_file("config", None, "E.g. configs/gemma2_2b_math.py.")
    _TOPOLOGY = flags.DEFINE_string("topology", None, "Such as v5e:8x16, or local.")
    _RESPONSE_TOKENS = flags.DEFINE_integer(
        "response_tokens",
        None,
        "Of a step's longest completion; all that are allowed if not given.",
    )
    _JSON = flags.DEFINE_string("json", None, "Also write the figures to this file.")
    flags.mark_flags_as_required(["config", "topology"])
    app.run(main, flags_parser=command.parse)
