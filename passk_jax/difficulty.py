"""Keeps the problems that a checkpoint solves sometimes: neither hopeless nor done.

python -m passk_jax.difficulty --workdir runs/x --n 16 --low 0.1 --high 0.8 --out kept.json

Samples n completions of each problem of a split, and writes the solve rate of each problem and the
ids of those within [low, high] (PKR 5.2). Train on them by --config.keep_problems=kept.json.
"""

from absl import flags

from passk_jax.run import command


def main() -> None:
    """Writes the file, and says how many problems are kept."""
    from passk_jax import processes
    from passk_jax.run import evaluation

    given = flags.FLAGS
    asked = command.sampling_arguments(
        low=given.low, high=given.high, temperature=given.temperature
    )
    result = evaluation.difficulty(command.run_folder(), **asked)
    if not processes.is_first():
        return
    command.write_json(given.out, result)
    rates = list(result["rates"].values())
    below = sum(rate < result["low"] for rate in rates)
    print(
        f"kept {len(result['kept'])} of {len(rates)} problems of the {result['split']} split with "
        f"a rate in [{result['low']:g}, {result['high']:g}] at step {result['step']}; "
        f"{below} below, {len(rates) - below - len(result['kept'])} above: {given.out}"
    )


if __name__ == "__main__":
    command.define_sampling(split="train")
    flags.DEFINE_string("out", None, "The file to write, JSON.", required=True)
    flags.DEFINE_float("low", 0.1, "The smallest solve rate that is kept.")
    flags.DEFINE_float("high", 0.8, "The largest solve rate that is kept.")
    flags.DEFINE_float("temperature", 1.0, "The temperature of the samples.")
    command.main(main)
