"""Where figures may go beside metrics.jsonl: TensorBoard, Weights & Biases, MLflow, trackio.

Each takes `add_scalars(step, scalars)` and `close()`. metrics.jsonl stays the truth: a run that was
killed and goes on sends the steps after its checkpoint once more, with the same values. The
services' addresses, projects and offline modes are their own environment variables.
"""

import importlib.util
import json
import logging
import os
import pathlib
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from passk_jax.errors import ConfigError
from passk_jax.tracking.event_file import EventFile

IDS = "writers.json"  # in the run's folder: the run's id at each service
_PROJECT = "passk_jax"
_CLOSE_TIMEOUT_S = 60

_logger = logging.getLogger(__name__)


class Service(Protocol):
    """Shows a run's figures somewhere."""

    def add_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds the figures of one step. A warm start has steps below 0."""

    def close(self) -> None:
        """Waits until everything is sent."""


class Place(NamedTuple):
    """Which run a service shows.

    Attributes:
      folder: The run's folder, local.
      name: The run's name.
      config: The config's values under dotted keys.
      first_step: The first step that is written from now on.
    """

    folder: pathlib.Path
    name: str
    config: Mapping[str, object]
    first_step: int

    def ids(self) -> dict[str, str]:
        """Returns the ids that were kept by `keep`."""
        path = self.folder / IDS
        return json.loads(path.read_text()) if path.exists() else {}

    def keep(self, service: str, number: str) -> str:
        """Keeps and returns the run's id at a service: a run that goes on is the same run there."""
        (self.folder / IDS).write_text(json.dumps(self.ids() | {service: number}) + "\n")
        return number

    def own_id(self, service: str) -> str:
        """Returns the id that this run has at a service which lets us choose it."""
        return self.ids().get(service) or self.keep(service, uuid.uuid4().hex[:12])


class WandB:
    """Weights & Biases: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE=offline.

    Its own counter of steps only grows, so `step` is a figure of its own, and every axis shows it.
    """

    def __init__(self, place: Place) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=place.name,
            id=place.own_id("wandb"),
            resume="allow",
            dir=place.folder,
            config=dict(place.config),
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def add_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs them with their step."""
        self._run.log({"step": step, **scalars})

    def close(self) -> None:
        """Ends the run there, once everything is sent."""
        self._run.finish()


class MLflow:
    """MLflow: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME. Its names have no @: pass_at_4_n16."""

    def __init__(self, place: Place) -> None:
        import mlflow

        self._metric = mlflow.entities.Metric
        self._client = mlflow.MlflowClient()
        self._run = place.ids().get("mlflow")
        if self._run is not None:
            self._client.update_run(self._run, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run = self._client.create_run(number, run_name=place.name).info.run_id
        self._run = place.keep("mlflow", run)
        params = [mlflow.entities.Param(key, str(value)) for key, value in place.config.items()]
        for start in range(0, len(params), 100):  # as many as one request may have
            self._client.log_batch(run, params=params[start : start + 100])

    def add_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Sends them in one request."""
        now = int(time.time() * 1000)
        metrics = [
            self._metric(name.replace("@", "_at_"), float(value), now, step)
            for name, value in scalars.items()
        ]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self) -> None:
        """Says that the run has ended."""
        self._client.set_terminated(self._run)


class Trackio:
    """trackio, on this machine or in a Space: TRACKIO_DIR, TRACKIO_SPACE_ID, TRACKIO_PROJECT."""

    def __init__(self, place: Place) -> None:
        import trackio

        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", _PROJECT),
            name=f"{place.name}-{place.own_id('trackio')}",  # it knows a run by its name
            resume="allow",
            config=dict(place.config),
            embed=False,
        )

    def add_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs them at their step."""
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        """Ends the run there, once everything is sent."""
        self._run.finish()


class InBackground:
    """Feeds a service from a thread of its own: no step waits for a network.

    An error of the service is logged once, and the run goes on without it.
    """

    def __init__(self, name: str, service: Service) -> None:
        self._name, self._service = name, service
        self._rows: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._feed, name=name, daemon=True)
        self._thread.start()

    def add_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Queues the figures of one step."""
        self._rows.put((step, dict(scalars)))

    def close(self) -> None:
        """Waits a minute at most until everything is sent."""
        self._rows.put(None)
        self._thread.join(_CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            _logger.warning("%s has not taken all figures: metrics.jsonl has them", self._name)

    def _feed(self) -> None:
        try:
            while (row := self._rows.get()) is not None:
                self._service.add_scalars(*row)
            self._service.close()
        except Exception as error:
            _logger.warning(
                "%s fails, and gets no more figures of this run: %s. metrics.jsonl has them",
                self._name,
                error,
            )


def _events(place: Place) -> Service:
    # Not in the background: like the other files, it stops the run when the disk is full.
    return EventFile(place.folder / "tensorboard", place.first_step)


# name: (module, how it is installed, class).
SERVICES: dict[str, tuple[str, str, Callable[[Place], Service]]] = {
    "tensorboard": ("tensorboardX", "tensorboardX", _events),
    "wandb": ("wandb", "'passk_jax[wandb]'", WandB),
    "mlflow": ("mlflow", "'passk_jax[mlflow]'", MLflow),
    "trackio": ("trackio", "'passk_jax[trackio]'", Trackio),
}


def check(names: Sequence[str] | None) -> None:
    """Checks that services are known, and that their packages are installed. Nothing is imported.

    Raises:
      ConfigError: A name is unknown, or its package is missing.
    """
    if not isinstance(names, list | tuple | None):
        raise ConfigError(f"writers = {names!r}: a tuple of names, or None, is allowed")
    for name in names or ():
        if name not in SERVICES:
            raise ConfigError(f"writers: {name!r} is none of {', '.join(SERVICES)}")
        module, package, _ = SERVICES[name]
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:  # none: a folder of that name, such as W&B's own
            raise ConfigError(f"writers: {name!r} needs {module}: pip install {package}")


def begin(names: Sequence[str] | None, place: Place) -> list[Service]:
    """Returns the services with these names.

    Raises:
      ConfigError: A service cannot be reached, say because nobody is logged in.
    """
    services: list[Service] = []
    for name in names or ():
        try:
            service = SERVICES[name][-1](place)
        except OSError:
            raise
        except Exception as error:
            brief = " ".join(str(error).split())[:300]
            raise ConfigError(f"config.writers: {name!r} cannot begin: {brief}") from error
        services.append(service if name == "tensorboard" else InBackground(name, service))
    return services
