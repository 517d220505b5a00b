"""Scores a policy on held-out problems: pass@k and more, with confidence intervals.

    python -m passk_jax.evaluate --workdir runs/x --split test --n 64 --k 1,4 --temperatures 0.6,1.0
    python -m passk_jax.evaluate --config arithmetic --config.init_from=FOLDER --n 64 --k 1,4,16,64

The policy is the checkpoint of a run, or the one that a config begins with, before any training.
"""

from absl import flags

from passk_jax.run import command


def main() -> None:
    """Evaluates, prints the metrics, and writes them, their picture and the answers."""
    from passk_jax import processes, tracking
    from passk_jax.run import evaluation

    n, given = flags.FLAGS.n, flags.FLAGS
    curve = command.pass_curve(given.plot)
    answers = None if given.samples is None else []
    asked = command.sampling_arguments(
        ks=command.numbers("k", int) if given.k else [k for k in tracking.KS if k <= n],
        temperatures=command.numbers("temperatures", float),
    )
    result = evaluation.evaluate(command.run_folder(), samples=answers, **asked)
    if not processes.is_first():
        return
    print(
        f"{result['from']}, step {result['step']}: {result['num_problems']} problems of the "
        f"{result['split']} split, n = {n}; 95% bootstrap intervals over problems"
    )
    width = max(len(row["metric"]) for row in result["results"])
    print(f"temperature  {'metric':{width}}     mean  interval")
    for row in result["results"]:
        part = "" if row["part"] == "all" else f"  {row['part']}"
        print(
            f"{row['temperature']:11g}  {row['metric']:{width}}  {row['estimate']:7.4f}  "
            f"[{row['low']:.4f}, {row['high']:.4f}]{part}"
        )
    if given.json:
        command.write_json(given.json, result)
    if given.samples:
        command.write_lines(given.samples, answers)
    if curve is not None:
        rows = [row for row in result["results"] if row["part"] == "all"]
        with command.writing():
            curve(given.plot, rows, f"{result['num_problems']} problems, {result['split']} split")


if __name__ == "__main__":
    # Defined here and not at import: two commands imported by one process may share flag names.
    command.define_sampling(split="test")
    flags.DEFINE_list("k", None, "The k of each figure, at most n; 1, 2, 4, 8, 16 if not given.")
    flags.DEFINE_list("temperatures", ["1.0"], "0 is greedy.")
    flags.DEFINE_string("json", None, "Also write the metrics to this file.")
    flags.DEFINE_string("plot", None, "Also draw pass@k over k: a file.png, .svg or .pdf.")
    flags.DEFINE_string("samples", None, "Also write the sampled answers to this file, JSON lines.")
    command.main(main)
