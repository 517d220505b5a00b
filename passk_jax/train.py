"""Trains a policy on sets of samples. One step is four lines: sample, score, transform, update.

    python -m passk_jax.train --config configs/arithmetic.py --config.estimator.k=4 --workdir runs/x

The same command again goes on where the run was stopped. On many hosts (a TPU pod) every one runs
it, with --distributed; `passk_jax.processes` says how they find each other.
"""

import contextlib
import importlib.metadata
import signal
import sys
from collections.abc import Iterator, Sequence

from absl import app, flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from passk_jax import command_line, processes, tracking, workdir
from passk_jax.experiment import ConfigError, build
from passk_jax.learner.checkpoint import (
    CheckpointError,
    quiet_logs,
)
from passk_jax.trainer import Stopped, Trainer


def train(config: ConfigDict, directory: epath.Path) -> None:
    """Trains, or goes on training, in a folder; then writes the report and prints the summary.

    Raises:
      ConfigError: the config cannot be run, or not in this folder; nothing was compiled or changed.
      CheckpointError: a checkpoint could not be written or read.
      Stopped: a signal asked to stop; a checkpoint was saved.
      OSError: a file could not be written.
    """
    workdir.check_same({"config": config.to_dict(), "versions": _versions()})
    experiment = processes.together(lambda: build(config), (ConfigError,))
    workdir.check_same({"problems": experiment.digest()})
    with workdir.hold(directory, config) as files:
        trainer = Trainer(experiment, directory, files)
        print(trainer.describe(), file=sys.stderr)
        try:
            with contextlib.closing(trainer), _stop_on_signals(trainer):
                trainer.run()
        finally:
            files.publish()
        processes.together(lambda: _report(directory, files) if processes.is_first() else None)


def _versions() -> dict[str, str]:
    """Of what decides about a run's numbers: it must be the same on all hosts."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"python": ".".join(map(str, sys.version_info[:2])), **versions}


def _report(directory: epath.Path, files: workdir.Files) -> None:
    arms = tracking.read_arms([files.folder])
    print(f"\n{tracking.summary_table(arms)}\n")
    try:
        path = tracking.write_report(arms, files.folder / "report.html", title=directory.name)
    except ModuleNotFoundError as error:  # a machine with the JAX stack alone
        print(f"no report: {error}")
    else:
        print(f"report: {directory / path.name}")
    files.publish()


@contextlib.contextmanager
def _stop_on_signals(trainer: Trainer) -> Iterator[None]:
    """SIGTERM and Ctrl-C let the step finish and stop the run; a second Ctrl-C stops it at once."""

    def ask(number, _):
        trainer.stop_signal = signal.Signals(number)
        signal.signal(number, signal.default_int_handler)
        print(
            f"\n{trainer.stop_signal.name}: saving a checkpoint after this step "
            "(once more to stop at once)",
            file=sys.stderr,
        )

    former = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    quiet_logs()
    return processes.run(_train)


def _train() -> int:
    directory = epath.Path(_WORKDIR.value)
    try:
        processes.together(lambda: workdir.check_reachable(directory), (ConfigError,))
        train(_CONFIG.value, directory)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"error: {error}. Mend the cause and run the same command again: it goes on from the "
            f"latest checkpoint in {directory / 'checkpoints'}",
            file=sys.stderr,
        )
        return 1
    except Stopped as stopped:
        number = stopped.args[0]
        print(
            f"stopped by {number.name}: a checkpoint is in {directory / 'checkpoints'}; the same "
            "command goes on from it",
            file=sys.stderr,
        )
        return 128 + number
    return 0


if __name__ == "__main__":
    # Defined here and not at import: two commands imported by one process may share flag names.
    _CONFIG = config_flags.DEFINE_config_file("config", None, "E.g. configs/arithmetic.py.")
    _WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; made where it is missing.")
    processes.define_flags()
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=command_line.parse)
