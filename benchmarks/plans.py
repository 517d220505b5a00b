"""Plans the shipped Gemma 2 configs for TPU slices and writes docs/plans.md.

    python -m benchmarks.plans [CONFIG ...]

It needs `make setup-tpu-plan` and takes some minutes for each plan. With names of configs, it
updates only their rows.
"""

import json
import pathlib
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs" / "plans.md", ROOT / "docs" / "plans.json"

ON_64_CHIPS = ["--config.mesh.fsdp=1", "--config.mesh.model=4"]
ON_16_CHIPS = ["--config.policy.remat=full"]
IN_8_BITS = ["--config.sampling.int8=('weights','caches')"]
PLANS = [
    ("gemma2_2b_math", "v5e:8x16", []),
    ("gemma2_2b_math", "v5e:8x16", IN_8_BITS),
    ("gemma2_2b_math", "v5e:4x4", ON_16_CHIPS),
    ("gemma2_2b_mbpp", "v5e:8x16", []),
    ("gemma2_2b_arc", "v5e:8x16", []),
    ("gemma2_9b_math", "v5e:16x16", []),
    ("gemma2_9b_math", "v5p:4x4x4", ON_64_CHIPS),
]
GIB = 2**30

HEAD = """# Plans

What `passk_jax.plan` says of the shipped configs. A step is compiled for the slice, without the
TPU, at the longest prompts and completions that the config allows. **Nothing of this was run on a
TPU.** Made by `python -m benchmarks.plans`; all figures are in [plans.json](plans.json).

Memory of a device at its fullest, in GiB, and how much of it a program may use:

"""

SECONDS = """
Seconds of a step: the first number if computation, memory and interconnect overlap completely, the
second if nothing does, and the third with overheads, which are assumed (see below). Scoring and the
work of the host come on top.

"""

LIMITS = """
What limits it, for a device and a step: matrix operations, bytes of HBM, bytes sent over the
interconnect, and the seconds that each takes alone:

"""

TAIL = """
## How it is counted
- **Memory** is what the compiler says.
- **Operations** are counted from the sizes of the model and the batch: 2 x parameters x tokens for
  each pass, and the two products of attention. They are exactly those of the program that jax gives
  to the compiler; the tests count both. Where a prompt runs on both halves of its group
  (`mesh.fsdp=2` here), XLA splits some of that work in the update and makes up to 6% fewer.
- **The update** is planned with all samples, as long as the config allows. `update_weighted_only`
  leaves out those without weight and `update_unpadded` the padding of shorter ones, so that most
  updates of a run take less. Nor does a plan know what prompts begin with, which runs once for all
  of them if it is long.
- **Bytes of HBM** are estimated from the same sizes, as `planning/work.py` says. The estimate does
  not know that small arrays stay in VMEM, nor that XLA reads operands of some products repeatedly.
- **Bytes sent** are read from the text of the compiled program by `planning/collectives.py`, about
  200 lines: the exchanges, their sizes and groups, and how often the loops around them run. This
  reader stays because XLA decides what is sent, and the layout does not tell it. In the update of
  2B on MATH, XLA gathers the layers' parameters four times, adds up gradients in the steps of a
  ring inside of products, and gathers the embeddings' gradients of all tokens on every device,
  which alone is a tenth of all bytes. The interconnect limits that update.
- **With overheads** is a third time, printed beside the two: nothing overlaps, HBM reaches 7/8 of
  its peak and links 560/680, an exchange takes at least 8/3 us for each link on its way, and an
  instruction 0.5 us beside its work. The two numbers of the links are from a profile of a v5e in
  the [scaling book](https://jax-ml.github.io/scaling-book/sharding) (Pop Quiz 2). The other two are
  assumed. `--calibrate metrics.jsonl` of one real run finds the instruction's, and
  `--instruction_us` gives it to other plans. The first job above takes 4.38 s so: 3.50 s to sample,
  with 61 exchanges and 1,381 instructions a token, and 0.88 s to update. In 8 bits it takes 3.52 s:
  half the bytes, and as many exchanges and instructions, which then take most of the time. In
  bfloat16 it could not take three seconds on this mesh: reading parameters and caches takes 2.1 s
  of it, and the two sums of each layer over four chips 0.6.

The chips that share a model are a block, 2 x 2 or 2 x 4 of them. In rows, as `jax.make_mesh` has
them, the first job takes 4.6 s: 0.3 s more to sample, and 0.1 s less to update, since the others'
rows are then whole.

An earlier version read the whole text and counted every instruction (jaxlib 0.10). Compared with
it, the bytes sent are the same. The bytes of HBM are 5% fewer to 7% more in sampling; in the
updates they are 34% fewer (9B on v5p) to 140% more (MBPP, whose activations fit in VMEM). HBM
limits none of these updates, and the seconds of every program differ by less than 8%.
"""

SEARCH = """
## Search for a faster mesh
`--search=N` estimates every mesh of the slice's devices with each split of training's parameters,
remat, choice of buckets, and from half to 4 times the problems of a step. Those whose parameters,
caches and kept activations cannot fit are left out. The best N are compiled: in turn one with the
config's own number of problems and one with another, which is another experiment. Of a mesh and a
number only the best that fits is shown. At most 2 N are compiled.

The work is that of a plan. What is sent, and how many instructions there are, follow from the
layout by rules that were read from the plans above, so those are no independent test of them: there
the bytes sent are estimated within 1% in sampling, and 13% below to 3% above in the updates, and a
step with overheads 5 to 11% below. The lower bound of memory is below the compiled figure in all.
The guess that puts tight ones last is 0.8 to 1.2 times the compiled figure.

For the first job above there are 2,322 settings, of which 1,158 cannot fit. Estimating the others
takes seconds; `--search=2` compiled the job itself and the best two in eight minutes. Their steps,
with overheads, take 5 to 7% longer than estimated, and two of the three are no plan above:

| mesh | problems | remat | response buckets | GiB | estimate, s | step, s | samples per chip-s |
| --- | --- | --- | --- | --- | --- | --- | --- |
| 16 x 2 x 4, the config | 16 | dots | 256, 512, 768 | 6.30 | 4.16 | 4.38 | 0.457 |
| 16 x 2 x 4 | 16 | dots | 512 | 6.30 | 4.20 | 4.42 | 0.453 |
| 32 x 1 x 4 | 64 | full | 256, 512, 768 | 6.30 | 6.63 | 7.07 | 1.13 |

The config is the best one for its batch. A larger batch pays most, because each token reads all
parameters, however many samples are drawn at once.
"""

MEMORY_COLUMNS = (
    "config", "slice", "chips", "mesh data x fsdp x model", "a step", "sampling", "update",
    "usable",
)  # fmt: skip
SECONDS_COLUMNS = (
    "config", "slice", "sampling, s", "update, s", "a step, s", "with overheads, s",
)  # fmt: skip
LIMITS_COLUMNS = (
    "config", "slice", "program", "TFLOP", "GB of HBM", "GB sent", "compute, s",
    "memory, s", "links, s", "limit",
)  # fmt: skip


def table(names, rows):
    lines = [names, ["---"] * len(names), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def command(config, topology, flags):
    return f"python -m passk_jax.plan --config configs/{config}.py --topology {topology}" + "".join(
        f' "{flag}"' if "'" in flag else f" {flag}" for flag in flags
    )


def make(config, topology, flags):
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "plan.json"
        words = shlex.split(command(config, topology, flags))[1:]
        subprocess.run([sys.executable, *words, "--json", file], cwd=ROOT, check=True)
        return json.loads(file.read_text())


def seconds(of, start=""):
    return f"{of[start + 'overlapped_s']:.2f} to {of[start + 'sequential_s']:.2f}"


def name(config, topology, flags):
    return " ".join([config, topology, *flags])


def page(results):
    memory, steps, limits, commands = [], [], [], []
    for config, topology, flags in PLANS:
        plan = results.get(name(config, topology, flags))
        if plan is None:
            continue
        label = f"`{config}`" + ", 8 bits" * (flags is IN_8_BITS)
        place, phases = [label, topology], plan["phases"]
        sampling, update = phases["sampling"], phases["update"]
        tokens = f"{plan['prompt_tokens']:,} + {plan['response_tokens']:,} tokens"
        gib = [sampling["peak_bytes"], update["peak_bytes"], plan["chip_bytes"]]
        memory.append(
            [
                *place,
                plan["devices"],
                " x ".join(map(str, plan["mesh"].values())),
                f"{plan['problems']} x {plan['samples']}, {tokens}",
                *[f"{size / GIB:.1f}" for size in gib],
            ]
        )
        overheads = f"{plan['step_with_overheads_s']:.2f}"
        whole = [seconds(plan, "step_"), overheads]
        steps.append([*place, seconds(sampling), seconds(update), *whole])
        for program, phase in phases.items():
            numbers = [
                phase["matrix_flops"] / 1e12,
                phase["hbm_bytes"] / 1e9,
                sum(phase["sent_bytes"].values()) / 1e9,
                phase["compute_s"],
                phase["memory_s"],
                phase["interconnect_s"],
            ]
            words = [f"{number:,.2f}" for number in numbers]
            limits.append([*place, program, *words, phase["limit"]])
        commands.append(command(config, topology, flags))
    parts = [HEAD, table(MEMORY_COLUMNS, memory), SECONDS, table(SECONDS_COLUMNS, steps), LIMITS]
    parts += [table(LIMITS_COLUMNS, limits), TAIL]
    return "\n".join(["".join(parts), "One at a time:", "```", *commands, "```", ""]) + SEARCH


def main():
    chosen = set(sys.argv[1:]) or {config for config, _, _ in PLANS}
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for config, topology, flags in PLANS:
        if config in chosen:
            results[name(config, topology, flags)] = make(config, topology, flags)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
