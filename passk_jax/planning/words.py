"""A plan in words."""

import math
from typing import Any

_GIB = 2**30
_BOUNDS = ("overlapped_s", "sequential_s", "with_overheads_s")


def describe(result: dict[str, Any]) -> str:
    """Returns a plan, as `step.plan` makes it, in words and tables, for one device."""
    mesh = " x ".join(f"{axis} {size}" for axis, size in result["mesh"].items())
    apart = result.get("sampling_devices")
    mesh += f", and {apart} that only sample" if apart else ""
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
        *[
            (f"{name}, all together at its fullest", phase["peak_bytes"])
            for name, phase in result["phases"].items()
        ],
        ("usable", result["chip_bytes"]),
    ]
    lines += [f"  {name:42s} {size / _GIB:8.2f}" for name, size in rows if size]
    lines += ["", *_cost_lines(result["phases"]), ""]
    if result.get("few_samples"):
        lines.append(f"Note: {result['few_samples']}.")
    if not result["fits"]:
        names = [name for name, phase in result["phases"].items() if not phase["fits"]]
        lines.append(f"It does NOT fit: {', '.join(names)}.")
        if result.get("suggestion"):
            lines.append(f"It would with {as_flags(result['suggestion'])}")
        else:
            lines.append("Nor with any of the changes tried: take a larger slice.")
    elif "step_sequential_s" in result:
        lines.append(
            f"It fits. A step takes about {result['step_overlapped_s']:.2f} s if computation, "
            f"memory and interconnect overlap completely, {result['step_sequential_s']:.2f} s if "
            f"nothing does, and {result['step_with_overheads_s']:.2f} s with overheads; scoring "
            "and what the host does come on top."
        )
        lines.append(_price(result))
    else:
        lines.append("It compiles.")
    if run := result.get("measured"):
        lines.append(
            f"The run's sampling took {run['sampling_s']:.2f} s, its update {run['update_s']:.2f} "
            f"s. Sampling is planned so with --instruction_us={run['instruction_us']:.3g}."
        )
    return "\n".join(lines)


def _price(result: dict[str, Any]) -> str:
    """Says what 1,000 steps take of the chips, and what that costs if there is a price."""
    hours = [result[f"step_{bound}"] * result["chips"] / 3.6 for bound in _BOUNDS]
    words = f"1,000 steps take {min(hours):,.0f} to {max(hours):,.0f} chip-hours"
    price, month = result["usd_per_chip_hour"], result["price_of"]
    if price is None:
        return f"{words}. No list price is known: --usd_per_chip_hour says what they cost."
    origin = "" if month is None else f", the list price on demand in the US in {month}"
    dollars = " to ".join(f"{price * each:,.0f}" for each in (min(hours), max(hours)))
    return f"{words}: {dollars} US dollars at {price:.2f} a chip-hour{origin}."


def _cost_lines(phases: dict[str, Any]) -> list[str]:
    lines = [
        f"{'a step of a device':20s} {'TFLOP':>8s} {'GB HBM':>8s} {'GB sent':>8s} "
        f"{'compute':>8s} {'memory':>8s} {'links':>8s}   limited by"
    ]
    overheads = []
    for name, phase in phases.items():
        if "matrix_flops" not in phase:
            continue
        sent = phase["sent_bytes"]
        numbers = [phase["matrix_flops"] / 1e12, phase["hbm_bytes"] / 1e9, sum(sent.values()) / 1e9]
        line = f"{name:20s} " + " ".join(f"{number:8.2f}" for number in numbers)
        if "limit" in phase:
            seconds = [phase["compute_s"], phase["memory_s"], phase["interconnect_s"]]
            line += " " + " ".join(f"{number:6.2f} s" for number in seconds)
            line += f"   {phase['limit']}"
            overheads.append(
                f"{name:20s} with overheads {phase['with_overheads_s']:.2f} s: "
                f"{phase['exchanges']:,.0f} exchanges, {phase['instructions']:,.0f} instructions"
            )
        lines.append(line)
        moved = {part: hbm_bytes for part, (_, hbm_bytes) in phase["parts"].items()}
        for kind, sizes in (("HBM", moved), ("sent", sent)):
            largest = sorted(sizes.items(), key=lambda pair: -pair[1])
            words = ", ".join(f"{part} {size / 1e9:.2f}" for part, size in largest if size)
            lines += [f"{'':20s} GB {kind}: {words}"] if words else []
    return [*lines, *overheads]


def as_flags(change: dict[str, Any]) -> str:
    """Returns a change of the config as the flags that make it, for a shell."""

    def quoted(value):
        return f'"{tuple(value)}"' if isinstance(value, tuple | list) else repr(value)

    return " ".join(f"--config.{name}={quoted(value)}" for name, value in change.items())


def short(number: float) -> str:
    """Returns a number with three digits or, if it is large, all before the point.

    >>> short(0.0012345), short(1.5), short(4321.4), short(0)
    ('0.00123', '1.50', '4,321', '0')
    """
    if not number:  # such as the price of one's own chips
        return "0"
    return f"{number:,.{max(0, 2 - math.floor(math.log10(number)))}f}"


def describe_search(result: dict[str, Any]) -> str:
    """Returns what `search.search` found, as a table."""
    lines = [
        f"{result['topology']}: {result['candidates']:,} candidates, {result['too_large']:,} of "
        "them too large; those below were compiled. Seconds are with overheads.",
        "",
        f"{'':6s} {'mesh':>14s} {'problems':>8s} {'remat':>6s} {'GiB':>6s} {'estimate, s':>11s} "
        f"{'step, s':>8s} {'samples per chip-s':>18s} {'$ per 1,000 steps':>17s}",
    ]
    names = ["config", *map(str, range(1, len(result["found"])))]
    for name, one in zip(names, result["found"], strict=True):
        mesh = " x ".join(map(str, one["mesh"].values()))
        line = (
            f"{name:6s} {mesh:>14s} {one['problems']:8d} {one['remat']!s:>6s} "
            f"{one['peak_bytes'] / _GIB:6.2f} {short(one['estimate_s']):>11s} "
        )
        if one["fits"]:
            price = one["usd_per_1000_steps"]
            line += (
                f"{short(one['step_with_overheads_s']):>8s} "
                f"{short(one['samples_per_chip_s']):>18s} "
                f"{'unknown' if price is None else short(price):>17s}"
            )
        else:
            line += "does not fit"
        lines.append(line)
    lines += ["", "A mesh is data x fsdp x model. The flags of each, beside those given:"]
    for name, one in list(zip(names, result["found"], strict=True))[1:]:
        lines.append(f"  {name}: {as_flags(one['change'])}")
    if any(one["problems"] != result["found"][0]["problems"] for one in result["found"]):
        lines.append("Other numbers of problems in a step make another experiment.")
    return "\n".join(lines)
