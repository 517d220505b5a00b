"""Trains a policy on sets of samples. One step is four lines: sample, score, transform, update.

    python -m passk_jax.train --config configs/arithmetic.py --config.estimator.k=4 --workdir runs/x

The same command again goes on where the run was stopped. On many hosts (a TPU pod) each one runs
it, with --distributed; `passk_jax.processes` says how they find each other.
"""

from absl import flags

from passk_jax.run import command


def main() -> None:
    """Trains: `run.loop` makes the steps, and `run.step` is one of them."""
    from passk_jax.run import compilations, dry_run, loop

    given, directory = flags.FLAGS, command.run_folder()
    if given.dry_run:
        print(dry_run.dry_run(given.config, directory, given.fork_from))
        return
    compilations.keep(given.config.compilation_cache)
    loop.train(given.config, directory, restart=given.restart, fork_from=given.fork_from)


def define_flags() -> None:
    """Defines the flags; not at import, because two commands may share a name."""
    command.define_config("configs/arithmetic.py")
    command.define_workdir()
    flags.DEFINE_bool("dry_run", False, "Check config, data and folder, say what would run, end.")
    flags.DEFINE_bool("restart", False, "Move what the folder holds to earlier/ in it, and begin.")
    flags.DEFINE_string("fork_from", None, "Begin with another run: RUN or RUN@step.")
    command.define_distributed()


if __name__ == "__main__":
    define_flags()
    command.main(main)
