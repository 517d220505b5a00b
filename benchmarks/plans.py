"""Plans the shipped Gemma 2 configs for TPU slices and writes docs/plans.md.

    python -m benchmarks.plans [CONFIG ...]

It needs `make setup-tpu-plan` and takes some minutes for each plan. With names of configs, it
updates only their rows.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs" / "plans.md", ROOT / "docs" / "plans.json"

ON_64_CHIPS = ["--config.mesh.fsdp=1", "--config.mesh.model=4"]
PLANS = [
    ("gemma2_2b_math", "v5e:8x16", []),
    ("gemma2_2b_mbpp", "v5e:8x16", []),
    ("gemma2_2b_arc", "v5e:8x16", []),
    ("gemma2_9b_math", "v5e:16x16", []),
    ("gemma2_9b_math", "v5p:4x4x4", ON_64_CHIPS),
]
GIB = 2**30

HEAD = """# Plans

What `passk_jax.plan` says of the shipped configs: a step compiled for the slice, without the TPU,
at the longest prompts and completions that the config allows. Memory is that of a device at its
fullest, in GiB, of what a program may use. Seconds are a roofline: the first number if computation,
memory and interconnect overlap completely, the second if nothing does. Scoring and what the host
does come on top. **Nothing of this was run on a TPU.** Made by `python -m benchmarks.plans`; all
figures are in [plans.json](plans.json).

"""

TAIL = """
What limits it, for a device and a step: matrix operations against 2 x parameters x tokens for each
pass (attention comes on top; with `remat = "full"` the update makes each layer twice), bytes of
HBM, bytes sent over the interconnect, and the seconds of each alone.

"""

STEPS = (
    "config", "slice", "chips", "mesh data x fsdp x model", "a step", "sampling, GiB",
    "update, GiB", "of", "sampling, s", "update, s", "a step, s",
)  # fmt: skip
LIMITS = (
    "config", "slice", "program", "TFLOP", "expected", "GB of HBM", "GB sent", "compute, s",
    "memory, s", "interconnect, s", "limit",
)  # fmt: skip


def table(names, rows):
    lines = [names, ["---"] * len(names), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def command(config, topology, flags):
    return f"python -m passk_jax.plan --config configs/{config}.py --topology {topology}" + "".join(
        f" {flag}" for flag in flags
    )


def make(config, topology, flags):
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "plan.json"
        words = command(config, topology, flags).split()[1:]
        subprocess.run([sys.executable, *words, "--json", file], cwd=ROOT, check=True)
        return json.loads(file.read_text())


def seconds(phase):
    return f"{phase['overlapped_s']:.2f} to {phase['sequential_s']:.2f}"


def page(results):
    rows, limits, commands = [], [], []
    for config, topology, flags in PLANS:
        plan = results.get(f"{config} {topology}")
        if plan is None:
            continue
        name, phases = f"`{config}`", plan["phases"]
        sampling, update = phases["sampling"], phases["update"]
        tokens = f"{plan['prompt_tokens']:,} + {plan['response_tokens']:,} tokens"
        gib = [sampling["peak_bytes"], update["peak_bytes"], plan["chip_bytes"]]
        rows.append(
            [
                name,
                topology,
                plan["devices"],
                " x ".join(map(str, plan["mesh"].values())),
                f"{plan['problems']} x {plan['samples']}, {tokens}",
                *[f"{size / GIB:.1f}" for size in gib],
                seconds(sampling),
                seconds(update),
                f"{plan['step_overlapped_s']:.2f} to {plan['step_sequential_s']:.2f}",
            ]
        )
        for program, phase in phases.items():
            numbers = [
                phase["matrix_flops"] / 1e12,
                phase["expected_flops"] / 1e12,
                phase["hbm_bytes"] / 1e9,
                sum(phase["sent_bytes"].values()) / 1e9,
                phase["compute_s"],
                phase["memory_s"],
                phase["interconnect_s"],
            ]
            words = [f"{number:,.2f}" for number in numbers]
            limits.append([name, topology, program, *words, phase["limit"]])
        commands.append(command(config, topology, flags))
    steps = HEAD + table(STEPS, rows) + TAIL + table(LIMITS, limits)
    return "\n".join([steps, "One at a time:", "```", *commands, "```", ""])


def main():
    chosen = set(sys.argv[1:]) or {config for config, _, _ in PLANS}
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for config, topology, flags in PLANS:
        if config in chosen:
            results[f"{config} {topology}"] = make(config, topology, flags)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
