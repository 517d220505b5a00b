"""Finds settings of a config under which a slice draws more samples a second.

Thousands of settings are estimated in seconds, and only the best are compiled.
"""

import dataclasses
import functools
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from passk_jax.errors import ConfigError
from passk_jax.planning import chips, compiling, estimate
from passk_jax.planning.collectives import Groups, groups_along
from passk_jax.planning.step import changed, longest, plan
from passk_jax.planning.words import as_flags, short
from passk_jax.policy.config import REMAT_POLICIES
from passk_jax.policy.sharding import MESH_AXES, Layout, mesh_axes
from passk_jax.run.parts import Parts, build_policy

_EMBED = "sharding.training.embed"
_BUCKETS = "sampling.response_buckets"
_EVALUATED = "evaluation.prompts_per_batch"


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """Settings that may be faster.

    Attributes:
      change: From keys of the config to the values that it has not; empty for the config itself.
      parts: What they make of the run.
    """

    change: dict[str, Any]
    parts: Parts

    @property
    def kind(self) -> tuple[int, ...]:
        """Its mesh and its problems in a step. Only the best of a kind is of interest."""
        mesh = self.parts.decoder.layout.mesh
        return (*mesh.devices.shape, self.parts.config.prompts_per_step)

    @property
    def update(self) -> tuple[Any, ...]:
        """What decides how much memory its update takes."""
        decoder = self.parts.decoder
        return (*self.kind, decoder.config.remat, dict(decoder.layout.rules)["embed"])


def search(config: ConfigDict, topology: str, most: int, **options: Any) -> dict[str, Any]:
    """Compiles the settings that promise the most samples per second.

    Half of them have the config's own number of problems in a step, the others another one.
    Of settings with the same mesh and number, only the best that fits is kept.

    Args:
      config: The run's config, which is compiled too, for comparison.
      topology: A slice, such as "v5e:8x16".
      most: How many that fit are wanted. At most twice as many are compiled.
      **options: Those of `step.plan`.

    Returns:
      What `words.describe_search` puts in a table. `found` has the plan of the config and then
      those of the settings, the best first and those that do not fit last. Each has its `change`,
      `estimate_s`, `samples_per_chip_s` and `usd_per_1000_steps`, where it fits.

    Raises:
      ConfigError: See `step.plan`; or there is no slice, or `most` is below 1.
    """
    if topology == "local":
        raise ConfigError(
            "--search with --topology=local: only of a TPU slice are the seconds known, such as "
            "--topology=v5e:8x16"
        )
    if most < 1:
        raise ConfigError(f"--search = {most}: must be at least 1, the number of those printed")
    on, tokens = chips.parse_slice(topology), longest(config, options.get("response_tokens"))
    instruction_s = options.get("instruction_s", chips.INSTRUCTION_S)
    found = list(candidates(config, compiling.slice_devices(on)))
    sizes = {one: estimate.memory(one.parts) for one in found}
    fitting = [one for one, (least, _) in sizes.items() if least <= on.chip.hbm_bytes]
    result = {
        "topology": topology,
        "candidates": len(found),
        "too_large": len(found) - len(fitting),
    }
    print(f"estimating {len(fitting):,} of {len(found):,} candidates ...", file=sys.stderr)

    @functools.cache
    def seconds(one):
        return estimate.step_s(one.parts, tokens, on, instruction_s)

    def rank(one):  # those that will hardly fit come last
        return sizes[one][1] > on.chip.hbm_bytes, seconds(one) / one.parts.config.prompts_per_step

    fitting.sort(key=rank)
    first = _compiled(config, found[0], topology, seconds(found[0]), options)
    rows, done = [], set()
    for one in _in_turn([one for one in fitting if one.change], config.prompts_per_step, done):
        rows.append(_compiled(config, one, topology, seconds(one), options))
        done.add(one.kind if rows[-1]["fits"] else one.update)
        if sum(row["fits"] for row in rows) == most or len(rows) == 2 * most:
            break
    rows.sort(key=lambda row: -(row["samples_per_chip_s"] or 0))
    return result | {"found": [first, *rows]}


def candidates(config: ConfigDict, devices: Sequence[jax.Device]) -> Iterator[Candidate]:
    """Yields the config itself, and then all settings that the devices and the config allow.

    They differ in the mesh, in the split of training's parameters, in what the backward pass
    computes again, in the sampler's buckets, and in the problems of a step, from half to 4 times
    as many. A mesh that does not divide evaluation's batch makes it larger.

    Args:
      config: The run's config.
      devices: The slice's.

    Raises:
      ConfigError: The config itself cannot be run.
    """
    given = build_policy(config, None, devices)
    sizes = given.decoder.layout.mesh.shape
    own = {f"mesh.{axis}": sizes[axis] for axis in MESH_AXES} | {
        "prompts_per_step": config.prompts_per_step,
        _EMBED: config.sharding.training.embed,
        "policy.remat": config.policy.remat,
        _BUCKETS: config.sampling.response_buckets,
        _EVALUATED: config.evaluation.prompts_per_batch,
    }
    yield Candidate({}, given)
    problems = own["prompts_per_step"]
    batches = [
        problems,
        *([problems // 2] if problems % 2 == 0 else []),
        2 * problems,
        4 * problems,
    ]
    # Of settings that split everything alike, the first is taken: the config's own mesh is.
    meshes = sorted(_meshes(given.decoder.layout.mesh.size), key=lambda mesh: mesh != dict(sizes))
    splits, seen = (own[_EMBED], None, "fsdp", ("fsdp", "data")), set()
    sampling = given.sampling_decoder.layout.mesh.size
    for mesh, batch, embed in itertools.product(meshes, batches, splits):
        of_sampling = mesh | {"data": max(1, sampling // (mesh["fsdp"] * mesh["model"]))}
        axes = mesh_axes(config.sharding.sampling.problems)
        shares = math.prod(of_sampling[axis] for axis in axes)
        settings = {f"mesh.{axis}": size for axis, size in mesh.items()} | {
            "prompts_per_step": batch,
            _EMBED: embed,
            _EVALUATED: -(-own[_EVALUATED] // shares) * shares,
        }
        change = {key: value for key, value in settings.items() if value != own[key]}
        try:
            parts = build_policy(changed(config, change), None, devices)
        except ConfigError:
            continue
        split = batch, _split(parts.decoder.layout), _split(parts.sampling_decoder.layout)
        if split not in seen:
            seen.add(split)
            # States are known by their optimizer: with the same one they are traced once.
            yield from _variants(change, dataclasses.replace(parts, optimizer=given.optimizer), own)


def _split(layout: Layout) -> tuple[Groups, ...]:
    """Returns for each axis of arrays the devices that have different parts of it."""
    devices = np.arange(layout.mesh.size).reshape(layout.mesh.devices.shape)
    axes = [sorted(map(MESH_AXES.index, along)) for _, along in layout.rules]
    return tuple(groups_along(devices, along) for along in axes)


def _variants(change, parts, own) -> Iterator[Candidate]:
    """Yields a candidate with each remat and each choice of buckets, but for the config itself."""
    room, buckets = parts.sampling.max_response_tokens, {tuple(own[_BUCKETS] or ()): {}}
    for pieces in (1, 2, 4):
        choice = tuple(sorted({room * i // pieces for i in range(1, pieces)} - {0}))
        buckets.setdefault(choice, {_BUCKETS: choice or None})
    for remat, (rooms, more) in itertools.product(REMAT_POLICIES, buckets.items()):
        other = {} if remat == own["policy.remat"] else {"policy.remat": remat}
        whole = change | other | more
        if not whole:
            continue
        again = dataclasses.replace(parts.decoder.config, remat=remat)
        decoder = parts.decoder.clone(config=again)
        sampling = dataclasses.replace(parts.sampling, response_buckets=rooms)
        yield Candidate(whole, dataclasses.replace(parts, decoder=decoder, sampling=sampling))


def _meshes(count: int) -> Iterator[dict[str, int]]:
    """Yields the meshes of so many devices; fsdp and model are powers of two."""
    powers = [2**i for i in range(count.bit_length()) if count % 2**i == 0]
    for fsdp, model in itertools.product(powers, powers):
        if count % (fsdp * model) == 0:
            yield {"data": count // (fsdp * model), "fsdp": fsdp, "model": model}


def _in_turn(ranked, problems, done) -> Iterator[Candidate]:
    """Yields the best with so many problems, the best with others, and so on, but those done."""
    lines = [
        [one for one in ranked if (one.kind[-1] == problems) == same] for same in (True, False)
    ]
    while any(lines):
        for line in lines:
            while line and {line[0].kind, line[0].update} & done:
                line.pop(0)
            if line:
                yield line.pop(0)


def _compiled(config, one, topology, estimate_s, options) -> dict[str, Any]:
    """Returns the plan of a candidate, with what the table says of it."""
    print(f"trying {as_flags(one.change) or 'the config itself'} ...", file=sys.stderr)
    row = plan(changed(config, one.change), topology, **options, suggest=False)
    row |= {"change": one.change, "remat": one.parts.decoder.config.remat}
    row["peak_bytes"] = max(phase["peak_bytes"] for phase in row["phases"].values())
    row |= {"estimate_s": estimate_s, "samples_per_chip_s": None, "usd_per_1000_steps": None}
    if not row["fits"]:
        print("... it does not fit", file=sys.stderr)
        return row
    step_s, price = row["step_with_overheads_s"], row["usd_per_chip_hour"]
    row["samples_per_chip_s"] = row["problems"] * row["samples"] / (step_s * row["chips"])
    if price is not None:
        row["usd_per_1000_steps"] = price * step_s * row["chips"] / 3.6
    print(f"... a step of {short(step_s)} s, estimated {short(estimate_s)} s", file=sys.stderr)
    return row
