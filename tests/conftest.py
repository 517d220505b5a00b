"""Settings that all tests share."""

import os
from importlib.metadata import version
from pathlib import Path

# What is compiled once serves all workers, all processes that tests start, and the next run: half
# of the time of these tests is XLA's. JAX and XLA read these when they are imported.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(".pytest_cache/compiled").absolute()))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"
# Of each program from the cache XLA:CPU says at length that it is another machine's: enough to fill
# a pipe that is read at the end only, and then the process waits for ever.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

# Most programs of a test run once: LLVM's optimisations would take longer than they save. XLA's own
# are made. The processes that tests start do the same: a run there equals one here bit for bit.
# Where XLA still has its older code generator, this takes a third of the newer one's time.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    + " --xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith(("0.9.", "0.10.")),
)

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
    if MEMORY_MAPS.exists() and MEMORY_MAPS.read_bytes().count(b"\n") > 10_000:
        jax.clear_caches()
