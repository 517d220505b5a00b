"""Trains a policy on sets of samples. One step is four lines: sample, score, transform, update.

    python -m passk_jax.train --config configs/arithmetic.py --config.estimator.k=4 --workdir runs/x

The same command again goes on where the run was stopped. On many hosts (a TPU pod) each one runs
it, with --distributed; `passk_jax.processes` says how they find each other.
"""

from absl import flags
from ml_collections import config_flags

from passk_jax.run import command


def main() -> None:
    """Trains: `run.loop` makes the steps, and `run.step` is one of them."""
    from passk_jax.run import compilations, loop

    compilations.keep(flags.FLAGS.config.compilation_cache)
    loop.train(flags.FLAGS.config, command.run_folder())


if __name__ == "__main__":
    # Defined here and not at import: two commands imported by one process may share flag names.
    config_flags.DEFINE_config_file("config", None, "E.g. configs/arithmetic.py.")
    flags.mark_flag_as_required("config")
    command.define_workdir()
    command.define_distributed()
    command.main(main)
