"""Compiled programs: kept on the disk for the next process, and counted."""

import pathlib

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"


def keep(folder: str | None) -> None:
    """Keeps compiled programs in a folder. JAX_COMPILATION_CACHE_DIR wins; `None` keeps none."""
    if folder is not None and jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(folder).expanduser()))


class Compilations:
    """Counts the programs that are compiled, or read from the folder of compiled ones.

    Attributes:
      count: Their number so far.
    """

    def __init__(self):
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def close(self) -> None:
        """Counts no more."""
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration: float, **labels: object) -> None:
        self.count += event == _COMPILED
