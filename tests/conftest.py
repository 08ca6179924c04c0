"""What every test needs before JAX is imported: the CPU, compilations that are shared, and repeatable examples."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("JAX_PLATFORMS", "cpu")


def _share_compilations() -> None:
    """What is compiled once is read back by whoever compiles the same again, in the processes that tests start too.

    Most of the suite's time is compiling, and a model that is solved twice compiles everything twice. The directory
    lives as long as the session; each worker has its own, as entries are not written at one stroke.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        directory = Path(tempfile.mkdtemp(prefix="vdsl-tests-"))
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
    else:
        directory = Path(os.environ["JAX_COMPILATION_CACHE_DIR"]) / worker
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(directory)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


_share_compilations()

settings.register_profile("vdsl", deadline=None, derandomize=True)
settings.load_profile("vdsl")


@pytest.fixture
def quick_compilation() -> Iterator[None]:
    """Compile without optimising: for tests that run a function a few times, where compiling is nearly all the time."""
    yield from _without_optimising()


@pytest.fixture(scope="module")
def quick_compilations() -> Iterator[None]:
    """The same for all tests of a file and its own fixtures."""
    yield from _without_optimising()


def _without_optimising() -> Iterator[None]:
    import jax  # not before the environment is set, and not by tests that do without

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
