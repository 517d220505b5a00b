"""Settings that all tests share."""

from pathlib import Path

import hypothesis
import jax
import pytest

# Timings never decide a test: the machines that run these are shared and slow.
hypothesis.settings.register_profile("passk_jax", deadline=None)
hypothesis.settings.load_profile("passk_jax")

MEMORY_MAPS = Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def room_for_programs():
    """Forgets compiled programs before their memory maps run out.

    Linux grants a process 65,530 maps (vm.max_map_count) and each program takes about ten: after
    some thousand tests the next compilation fails, or the process dies.
    """
    yield
    if MEMORY_MAPS.exists() and MEMORY_MAPS.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
