"""A plan in words."""

from typing import Any

_GIB = 2**30
_BOUNDS = ("overlapped_s", "sequential_s")


def describe(result: dict[str, Any]) -> str:
    """Returns a plan, as `step.plan` makes it, in words and tables, for one device."""
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
        *[
            (f"{name}, all together at its fullest", phase["peak_bytes"])
            for name, phase in result["phases"].items()
        ],
        ("usable", result["chip_bytes"]),
    ]
    lines += [f"  {name:42s} {size / _GIB:8.2f}" for name, size in rows if size]
    lines += ["", *_cost_lines(result["phases"]), ""]
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
            "nothing does; scoring and what the host does come on top."
        )
        lines.append(_price(result))
    else:
        lines.append("It compiles.")
    return "\n".join(lines)


def _price(result: dict[str, Any]) -> str:
    """Says what 1,000 steps take of the chips, and what that costs if there is a price."""
    hours = [result[f"step_{bound}"] * result["chips"] / 3.6 for bound in _BOUNDS]
    words = f"1,000 steps take {hours[0]:,.0f} to {hours[1]:,.0f} chip-hours"
    price, month = result["usd_per_chip_hour"], result["price_of"]
    if price is None:
        return f"{words}. No list price is known: --usd_per_chip_hour says what they cost."
    origin = "" if month is None else f", the list price on demand in the US in {month}"
    dollars = " to ".join(f"{price * each:,.0f}" for each in hours)
    return f"{words}: {dollars} US dollars at {price:.2f} a chip-hour{origin}."


def _cost_lines(phases: dict[str, Any]) -> list[str]:
    lines = [
        f"{'a step of a device':20s} {'TFLOP':>8s} {'GB HBM':>8s} {'GB sent':>8s} "
        f"{'compute':>8s} {'memory':>8s} {'links':>8s}   limited by"
    ]
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
        lines.append(line)
        moved = {part: hbm_bytes for part, (_, hbm_bytes) in phase["parts"].items()}
        for kind, sizes in (("HBM", moved), ("sent", sent)):
            largest = sorted(sizes.items(), key=lambda pair: -pair[1])
            words = ", ".join(f"{part} {size / 1e9:.2f}" for part, size in largest if size)
            lines += [f"{'':20s} GB {kind}: {words}"] if words else []
    return lines


def as_flags(change: dict[str, Any]) -> str:
    """Returns a change of the config as the flags that make it."""
    return " ".join(f"--config.{name}={value!r}" for name, value in change.items())
