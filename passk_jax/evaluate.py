"""Scores a run's checkpoint on held-out problems: pass@k and more, with confidence intervals.

python -m passk_jax.evaluate --workdir runs/x --split test --n 64 --k 1,4,16 --temperatures 0.6,1.0
"""

from absl import flags

from passk_jax.run import command


def main() -> None:
    """Evaluates, prints the metrics, and writes them to --json."""
    from passk_jax import processes, tracking
    from passk_jax.run import evaluation

    n, given = flags.FLAGS.n, flags.FLAGS.k
    asked = command.sampling_arguments(
        ks=command.numbers("k", int) if given else [k for k in tracking.KS if k <= n],
        temperatures=command.numbers("temperatures", float),
    )
    result = evaluation.evaluate(command.run_folder(), **asked)
    if not processes.is_first():
        return
    print(
        f"step {result['step']}, {result['num_problems']} problems of the {result['split']} split, "
        f"n = {result['num_samples']}; 95% bootstrap intervals over problems"
    )
    width = max(len(row["metric"]) for row in result["results"])
    print(f"temperature  {'metric':{width}}     mean  interval")
    for row in result["results"]:
        part = "" if row["part"] == "all" else f"  {row['part']}"
        print(
            f"{row['temperature']:11g}  {row['metric']:{width}}  {row['estimate']:7.4f}  "
            f"[{row['low']:.4f}, {row['high']:.4f}]{part}"
        )
    if flags.FLAGS.json:
        command.write_json(flags.FLAGS.json, result)


if __name__ == "__main__":
    # Defined here and not at import: two commands imported by one process may share flag names.
    command.define_sampling(split="test")
    flags.DEFINE_list("k", None, "The k of each figure, at most n; 1, 2, 4, 8, 16 if not given.")
    flags.DEFINE_list("temperatures", ["1.0"], "0 is greedy.")
    flags.DEFINE_string("json", None, "Also write the metrics to this file.")
    command.main(main)
