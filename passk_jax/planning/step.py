"""The plan of a step on a TPU slice: memory from the compiler, and a roofline of its time."""

import functools
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from passk_jax.errors import ConfigError
from passk_jax.planning import compiling, work
from passk_jax.planning.chips import Slice, parse_slice
from passk_jax.planning.collectives import collectives
from passk_jax.policy.sharding import MESH_AXES
from passk_jax.run.parts import Parts, build_policy


def plan(
    config: ConfigDict,
    topology: str,
    *,
    response_tokens: int | None = None,
    usd_per_chip_hour: float | None = None,
) -> dict[str, Any]:
    """Compiles the programs of a step for a slice and counts what they take.

    Args:
      config: The run's config. Neither weights nor tokenizer nor data are needed.
      topology: A slice such as "v5e:8x16", or "local" for the devices here.
      response_tokens: Tokens of the step's longest completion, which is when sampling ends; `None`
        for as many as the config allows.
      usd_per_chip_hour: What a chip costs; `None` for the list price, where one is known.

    Returns:
      What `words.describe` puts in words; memory and everything else for one device.

    Raises:
      ConfigError: The config cannot be run on this slice, there is no such topology, or libtpu is
        not installed.
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
    parts = build_policy(config, None, devices)
    result = _settings(parts, topology, tokens) | _memory_kept(parts)
    result["chip_bytes"] = None if on is None else on.chip.hbm_bytes
    phases = {}
    for name in compiling.phase_names(parts):
        print(f"compiling {name} for {topology} ...", file=sys.stderr, flush=True)
        compiled = compiling.compile_phase(name, parts)
        phases[name] = _memory(name, compiled, parts, on)
        if compiled.executable is not None:
            phases[name] |= _cost(name, compiled.executable.as_text(), parts, tokens, on)
    result["phases"] = phases
    result["fits"] = all(phase["fits"] for phase in phases.values())
    if not result["fits"]:
        result["suggestion"] = _suggestion(config, devices, on, phases)
    if on is not None and all("sequential_s" in phase for phase in phases.values()):
        for bound in ("overlapped_s", "sequential_s"):
            result[f"step_{bound}"] = sum(phase[bound] for phase in phases.values())
        result["chips"] = on.num_chips
        result["usd_per_chip_hour"], result["price_of"] = (
            on.list_price if usd_per_chip_hour is None else (usd_per_chip_hour, None)
        )
    return result


def _settings(parts: Parts, topology: str, tokens: int) -> dict[str, Any]:
    config, mesh = parts.config, parts.decoder.layout.mesh
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


def _memory_kept(parts: Parts) -> dict[str, Any]:
    """What lies on a device throughout a run, and what sampling adds."""
    state = compiling.training_state(parts)
    of_prompts, of_completions = compiling.cache_bytes(parts)
    return {
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        "parameters_bytes": compiling.tree_bytes(state.params),
        "optimizer_bytes": compiling.tree_bytes(state.optimizer_state),
        "frozen_bytes": compiling.tree_bytes(state.frozen),
        "reference_bytes": compiling.tree_bytes(state.reference),
        "kept_bytes": compiling.tree_bytes(state),
        "sampling_parameters_bytes": compiling.tree_bytes(
            compiling.abstract_sampling_params(parts.sampling_decoder)
        ),
        "prompt_cache_bytes": of_prompts,
        "response_cache_bytes": of_completions,
    }


def _memory(
    name: str, compiled: compiling.Compiled, parts: Parts, on: Slice | None
) -> dict[str, Any]:
    """Memory at its fullest: the part of the state that a program is not given lies beside it."""
    kept = compiling.tree_bytes(compiling.training_state(parts))
    peak = compiled.peak_bytes + kept - compiling.tree_bytes(compiling.given(name, parts))
    fits = compiled.executable is not None and (on is None or peak <= on.chip.hbm_bytes)
    return {"peak_bytes": peak, "fits": fits}


def _cost(name: str, text: str, parts: Parts, tokens: int, on: Slice | None) -> dict[str, Any]:
    """What a program takes, as often as it runs in a step, and its seconds on a slice.

    Computation, HBM and interconnect each take some seconds. `overlapped_s` is the longest of the
    three. `sequential_s` is the time if the parts of the program run one after the other, each as
    long as its computation or its HBM takes, and then wait for every exchange.
    """
    times = parts.objective.updates_per_step if name == "update" else 1
    works = {part: times * one for part, one in work.of_phase(name, parts, tokens).items()}
    trips = {}
    if name == "sampling":  # its loops end when all completions have
        for room, drawn in work.loops(parts, tokens):
            trips[f"jit(sample)/until_{room}/while"] = drawn
    exchanges, sent = collectives(text, trips), Counter()
    for exchange in exchanges:
        sent[exchange.kind] += times * exchange.sent_bytes
    cost = {
        "matrix_flops": sum(one.flops for one in works.values()),
        "hbm_bytes": sum(one.hbm_bytes for one in works.values()),
        "sent_bytes": dict(sent),
        "parts": {part: [one.flops, one.hbm_bytes] for part, one in works.items()},
    }
    if on is None:
        return cost
    coordinates = [device.coords for device in parts.decoder.layout.mesh.devices.flat]

    @functools.cache
    def bandwidth(groups):
        return min(on.bandwidth([coordinates[device] for device in group]) for group in groups)

    peak, rate = on.chip.peak_flops, on.chip.hbm_bandwidth
    seconds = {
        "compute": cost["matrix_flops"] / peak,
        "memory": cost["hbm_bytes"] / rate,
        "interconnect": times
        * sum(one.sent_bytes / bandwidth(one.groups) for one in exchanges if one.sent_bytes),
    }
    in_turn = sum(max(one.flops / peak, one.hbm_bytes / rate) for one in works.values())
    return (
        cost
        | {f"{unit}_s": value for unit, value in seconds.items()}
        | {
            "overlapped_s": max(seconds.values()),
            "sequential_s": in_turn + seconds["interconnect"],
            "limit": max(seconds, key=seconds.get),
        }
    )


def _suggestion(config, devices, on, phases) -> dict[str, Any] | None:
    """Returns the first of some changes, small ones first, that makes the failing phases fit."""
    failing = [name for name, phase in phases.items() if not phase["fits"]]
    for change in _changes(config, set(failing)):
        changed = config.copy_and_resolve_references()
        with changed.ignore_type(), changed.unlocked():
            changed.update_from_flattened_dict(change)
        try:
            parts = build_policy(changed, None, devices)
        except ConfigError:
            continue
        print(f"trying {change} ...", file=sys.stderr)
        if all(
            _memory(name, compiling.compile_phase(name, parts), parts, on)["fits"]
            for name in failing
        ):
            return change
    return None


def _changes(config: ConfigDict, failing: set[str]) -> Iterator[dict[str, Any]]:
    """Yields changes that cost little first: more recomputation, smaller parts, then less work."""
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
