"""Trains one run for each point of a grid of config keys, several at a time.

    python -m passk_jax.sweep --config arithmetic --config.steps=100 \
      --grid estimator.k=1,4,8 --grid seed=0..4 --workdir runs/k --jobs 2

Each run has a folder in --workdir, named after its values, and a log beside it. The same command
again goes on with what is not finished. `--commands` prints one command a line, for a cluster.
"""

from absl import flags

from passk_jax.run import command


def main() -> int:
    """Runs the grid, and says how each run ended."""
    from passk_jax.run import sweep

    given = flags.FLAGS
    points = sweep.grid(given.grid)
    runs = sweep.runs(command.config_arguments(), points, given.config, given.workdir)
    if given.commands:
        print("\n".join(map(sweep.in_words, runs)))
        return 0
    failed = sweep.run_all(runs, given.jobs)
    print(f"compare them: python -m passk_jax.report {given.workdir}/*/")
    return 1 if failed else 0


if __name__ == "__main__":
    # Defined here and not at import: two commands imported by one process may share flag names.
    command.define_config("arithmetic")
    command.define_workdir()
    flags.DEFINE_multi_string("grid", None, "KEY=VALUE,VALUE,... or KEY=FIRST..LAST; repeatable.")
    flags.DEFINE_integer("jobs", 1, "How many runs at a time; more than 1 have one thread each.")
    flags.DEFINE_bool("commands", False, "Print the commands instead of running them.")
    flags.mark_flag_as_required("grid")
    command.main(main)
