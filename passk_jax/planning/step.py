"""The plan of a step on a TPU slice: memory from the compiler, and a roofline of its time."""

import functools
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from passk_jax.errors import ConfigError
from passk_jax.planning import chips, compiling, work
from passk_jax.planning.chips import Slice, parse_slice
from passk_jax.planning.collectives import Collective, Groups, collectives, instructions
from passk_jax.planning.work import Work
from passk_jax.policy.sharding import MESH_AXES
from passk_jax.run.advantages import few_samples
from passk_jax.run.parts import Parts, build_policy


def plan(
    config: ConfigDict,
    topology: str,
    *,
    response_tokens: int | None = None,
    usd_per_chip_hour: float | None = None,
    instruction_s: float = chips.INSTRUCTION_S,
    suggest: bool = True,
) -> dict[str, Any]:
    """Compiles the programs of a step for a slice and counts what they take.

    Args:
      config: The run's config. Neither weights nor tokenizer nor data are needed.
      topology: A slice such as "v5e:8x16", or "local" for the devices here.
      response_tokens: Tokens of the step's longest completion, which is when sampling ends; `None`
        for as many as the config allows.
      usd_per_chip_hour: What a chip costs; `None` for the list price, where one is known.
      instruction_s: Seconds that an instruction takes beside its work.
      suggest: Whether changes are compiled, where it does not fit, until one does.

    Returns:
      What `words.describe` puts in words; memory and everything else for one device.

    Raises:
      ConfigError: The config cannot be run on this slice, there is no such topology, or libtpu is
        not installed.
    """
    tokens = longest(config, response_tokens)
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
            text = compiled.executable.as_text()
            phases[name] |= _cost(name, text, parts, tokens, on, instruction_s)
    result["phases"] = phases
    result["fits"] = all(phase["fits"] for phase in phases.values())
    if suggest and not result["fits"]:
        result["suggestion"] = _suggestion(config, devices, on, phases)
    if on is not None and all("sequential_s" in phase for phase in phases.values()):
        for bound in ("overlapped_s", "sequential_s", "with_overheads_s"):
            seconds_of = {name: phase[bound] for name, phase in phases.items()}
            result[f"step_{bound}"] = seconds_of_step(parts, seconds_of)
        result["chips"] = on.num_chips
        result["usd_per_chip_hour"], result["price_of"] = (
            on.list_price if usd_per_chip_hour is None else (usd_per_chip_hour, None)
        )
    return result


def seconds_of_step(parts: Parts, seconds: Mapping[str, float]) -> float:
    """Returns the seconds of a step whose programs take these: in turn, or sampling beside them."""
    if not parts.samples_apart:
        return sum(seconds.values())
    rest = sum(each for name, each in seconds.items() if name != "sampling")
    return max(seconds["sampling"], rest)


def longest(config: ConfigDict, response_tokens: int | None) -> int:
    """Returns the tokens of a step's longest completion; see `plan`.

    Raises:
      ConfigError: The config allows no completion that long.
    """
    limit = config.sampling.max_response_tokens
    tokens = limit if response_tokens is None else response_tokens
    if not 1 <= tokens <= limit:
        raise ConfigError(
            f"--response_tokens = {tokens}: between 1 and config.sampling.max_response_tokens = "
            f"{limit} are allowed"
        )
    return tokens


def _settings(parts: Parts, topology: str, tokens: int) -> dict[str, Any]:
    config, mesh = parts.config, parts.decoder.layout.mesh
    return {
        "topology": topology,
        "devices": mesh.size,
        "sampling_devices": parts.sampling_decoder.layout.mesh.size if parts.samples_apart else 0,
        "mesh": {axis: mesh.shape[axis] for axis in MESH_AXES},
        "problems": config.prompts_per_step,
        "samples": config.samples_per_prompt,
        "few_samples": few_samples(config),
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
        "sampling_parameters_bytes": compiling.tree_bytes(compiling.sampling_params(parts)),
        "prompt_cache_bytes": of_prompts,
        "response_cache_bytes": of_completions,
    }


def _memory(
    name: str, compiled: compiling.Compiled, parts: Parts, on: Slice | None
) -> dict[str, Any]:
    """Memory at its fullest: the part of the state that a program is not given lies beside it."""
    elsewhere = name == "sampling" and parts.samples_apart
    kept = 0 if elsewhere else compiling.tree_bytes(compiling.training_state(parts))
    peak = compiled.peak_bytes + kept - compiling.tree_bytes(compiling.given(name, parts))
    if name == "update" and parts.samples_apart:  # the copy for the others is made here first
        peak = max(peak, kept + compiling.tree_bytes(compiling.sampling_params(parts)))
    fits = compiled.executable is not None and (on is None or peak <= on.chip.hbm_bytes)
    return {"peak_bytes": peak, "fits": fits}


def _cost(
    name: str,
    text: str,
    parts: Parts,
    tokens: int,
    on: Slice | None,
    instruction_s: float = chips.INSTRUCTION_S,
) -> dict[str, Any]:
    """What a program takes, as often as it runs in a step, and its seconds on a slice."""
    times = parts.objective.updates_per_step if name == "update" else 1
    works = {part: times * one for part, one in work.of_phase(name, parts, tokens).items()}
    trips = {}
    if name == "sampling":  # its loops end when all completions have
        for room, drawn in work.loops(parts, tokens):
            trips[f"jit(sample)/until_{room}/while"] = drawn
    exchanges, sent = [one.repeated(times) for one in collectives(text, trips)], Counter()
    for exchange in exchanges:
        sent[exchange.kind] += exchange.sent_bytes
    cost = {
        "matrix_flops": sum(one.flops for one in works.values()),
        "hbm_bytes": sum(one.hbm_bytes for one in works.values()),
        "sent_bytes": dict(sent),
        "parts": {part: [one.flops, one.hbm_bytes] for part, one in works.items()},
    }
    if on is None:
        return cost
    executed = times * instructions(text, trips)
    mesh = compiling.mesh_of(name, parts)
    return cost | seconds(works, exchanges, executed, mesh, on, instruction_s)


def seconds(
    works: Mapping[str, Work],
    exchanges: Sequence[Collective],
    executed: float,
    mesh: Mesh,
    on: Slice,
    instruction_s: float = chips.INSTRUCTION_S,
) -> dict[str, Any]:
    """Returns the seconds of a program on a slice.

    Computation, HBM and interconnect each take some seconds. `overlapped_s` is the longest of the
    three. `sequential_s` is the time if the parts of the program run one after the other, each as
    long as its computation or its HBM takes, and then wait for every exchange. `with_overheads_s`
    is that time with what is reached of the peaks, what an exchange takes at least, and what each
    instruction takes beside its work.

    Args:
      works: The parts of the program.
      exchanges: What devices send each other, in all.
      executed: How many instructions are executed.
      mesh: The devices, to which the exchanges' groups refer.
      on: The slice that they are.
      instruction_s: Seconds that an instruction takes beside its work.
    """
    places = tuple(tuple(device.coords) for device in mesh.devices.flat)
    peak, rate = on.chip.peak_flops, on.chip.hbm_bandwidth
    sending = [one for one in exchanges if one.sent_bytes]
    alone = {
        "compute": sum(one.flops for one in works.values()) / peak,
        "memory": sum(one.hbm_bytes for one in works.values()) / rate,
        "interconnect": sum(one.sent_bytes / _links(on, places, one.groups)[0] for one in sending),
    }

    def in_turn(share):
        return sum(max(one.flops / peak, one.hbm_bytes / (share * rate)) for one in works.values())

    def waiting(one):
        bandwidth, hops = _links(on, places, one.groups)
        least = chips.HOP_S * hops * (2 if one.kind == "all-reduce" else 1)
        return max(one.sent_bytes / (chips.LINK_SHARE * bandwidth), one.times * least)

    overheads = sum(map(waiting, sending)) + instruction_s * executed
    return {f"{unit}_s": value for unit, value in alone.items()} | {
        "exchanges": sum(one.times for one in sending),
        "instructions": executed,
        "overlapped_s": max(alone.values()),
        "sequential_s": in_turn(1) + alone["interconnect"],
        "with_overheads_s": in_turn(chips.HBM_SHARE) + overheads,
        "limit": max(alone, key=alone.get),
    }


@functools.lru_cache(maxsize=1024)
def _links(on: Slice, places: Sequence[tuple[int, ...]], groups: Groups) -> tuple[float, float]:
    """Returns the least bandwidth and the longest way of some groups of devices at these places."""
    found = [[places[device] for device in group] for group in groups]
    return min(map(on.bandwidth, found)), max(map(on.hops, found))


def _suggestion(config, devices, on, phases) -> dict[str, Any] | None:
    """Returns the first of some changes, small ones first, that makes the failing phases fit."""
    failing = [name for name, phase in phases.items() if not phase["fits"]]
    for change in _changes(config, set(failing)):
        try:
            parts = build_policy(changed(config, change), None, devices)
        except ConfigError:
            continue
        print(f"trying {change} ...", file=sys.stderr)
        if all(
            _memory(name, compiling.compile_phase(name, parts), parts, on)["fits"]
            for name in failing
        ):
            return change
    return None


def changed(config: ConfigDict, change: Mapping[str, Any]) -> ConfigDict:
    """Returns a copy of a config with other values of some keys, such as "mesh.model"."""
    copy = config.copy_and_resolve_references()
    with copy.ignore_type(), copy.unlocked():
        copy.update_from_flattened_dict(change)
    return copy


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
