"""Trains a policy on sets of samples. One step is four lines: sample, score, transform, update.

    python -m passk_jax.train --config configs/arithmetic.py --config.estimator.k=4 --workdir runs/x

The same command again goes on where the run was stopped. On many hosts (a TPU pod) each one runs
it, with --distributed; `passk_jax.processes` says how they find each other.
"""

from absl import flags

from passk_jax.run import command


def main() -> None:
    """Trains: `run.loop` makes the steps, and `run.step` is one of them."""
    from passk_jax.run import loop

    given = flags.FLAGS
    loop.train(given.config, command.run_folder(), restart=given.restart, fork_from=given.fork_from)


if __name__ == "__main__":
    # Defined here and not at import: two commands imported by one process may share flag names.
    command.define_config("configs/arithmetic.py")
    command.define_workdir()
    flags.DEFINE_bool("restart", False, "Move what the folder holds to earlier/ in it, and begin.")
    flags.DEFINE_string("fork_from", None, "Begin with another run: RUN or RUN@step.")
    command.define_distributed()
    command.main(main)
