"""Settings of the whole suite: what is compiled is kept between runs but not in memory, and examples are fixed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# As environment variables, because tests start processes of their own, and because JAX reads them when it is
# imported. What the environment says already is left alone, JAX_PLATFORMS and JAX_ENABLE_X64 included.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Most of what is compiled here runs once: what the optimiser costs is more than what it saves, and the older emitters
# take a third less time.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false",
)

import jax
import pytest
from hypothesis import Phase, settings

# Not shrunk: every attempt compiles, and the examples are small.
settings.register_profile("suite", deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
settings.load_profile("suite")


LARGEST_CACHE = 2**30  # bytes
MOST_MAPS = 20_000


def pytest_configure(config):
    """Forgets what earlier versions have compiled, once it is much. JAX's own limit reads every file at each write."""
    cache = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    is_first = not hasattr(config, "workerinput")
    if is_first and sum(path.stat().st_size for path in cache.glob("*")) > LARGEST_CACHE:
        shutil.rmtree(cache)


@pytest.fixture(autouse=True, scope="module")
def few_compiled() -> Iterator[None]:
    """Forgets compiled functions once they are many, after a file of tests.

    Each takes some memory maps, of which Linux grants a process 65530; beyond that, the process crashes.
    """
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
