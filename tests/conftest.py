"""Shared by all tests: double precision, explicit random keys, and quicker compilation."""

import ctypes
import gc
import itertools
import os
import sys
import tempfile
import zlib
from pathlib import Path

import jax
import pytest
from threadpoolctl import threadpool_limits

jax.config.update("jax_enable_x64", True)
os.environ["KERAS_BACKEND"] = "jax"
# What JAX traces are many objects, few of them garbage: looking for it took a tenth of all time.
gc.set_threshold(200_000, 20, 100)
# The threads of numpy's linear algebra wait for each other at full speed: where the workers already
# take every core, a decomposition takes three times the processor time on two threads.
threadpool_limits(1)
os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
if jax.__version_info__ < (0, 11, 1):  # later ones end the process at a flag that they do not know
    # XLA's older code for loops compiles in half the time, and a small program in one part in less
    # than in 32. Read when JAX first computes something.
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"


def pytest_configure(config):
    """A program is compiled once in a run: in this process, a worker, or what a test starts."""
    if hasattr(config, "workerinput"):
        return  # a worker, which starts with the environment that is made here
    folder = tempfile.TemporaryDirectory(prefix="lrpjax-compiled-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    for option, value in {
        "jax_compilation_cache_dir": folder.name,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }.items():
        os.environ[option.upper()] = str(value)
        jax.config.update(option, value)


@pytest.fixture
def getkey(request):
    """`getkey()` is a fresh key each time; the test's and its file's name alone decide which."""
    name = f"tests/{request.node.path.name}::{request.node.name}"
    root = jax.random.key(zlib.crc32(name.encode()))
    counter = itertools.count()
    return lambda: jax.random.fold_in(root, next(counter))


@pytest.fixture
def command_line(monkeypatch, capsys):
    """`command_line("csc", "--help")` runs `lrpjax csc --help`; returns (exit, out, err)."""
    from lrpjax import cli

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["lrpjax", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
            sys.exit(0)
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return call


class Compiled:
    """What JAX has compiled in this process. It is kept from module to module, since most tests
    begin with the same small programs, until it takes too much."""

    MEMORY = 9 * 10**8  # bytes of the process, with what the tests themselves hold
    GROWTH = 1 << 28  # bytes, below which there is little to win
    MAPS = 20_000  # of the 65,530 memory maps that Linux allows; a program takes a few

    def __init__(self):
        self.quickly, self.left = False, 0

    def use(self, *, quickly):
        """Whether programs are compiled three times as fast, unoptimised. One that was compiled
        in the other way is not used again."""
        if quickly != self.quickly:
            self.forget()
        self.quickly = quickly
        jax.config.update("jax_disable_most_optimizations", quickly)

    def keep_small(self):
        if resident() > max(self.MEMORY, self.left + self.GROWTH):
            self.forget()

    def keep_few_maps(self):
        if memory_maps() > self.MAPS:
            self.forget()

    def forget(self):
        """What a compiler has freed stays with the process, 1 GB of it, until glibc is asked."""
        jax.clear_caches()
        gc.collect()
        if sys.platform == "linux":
            getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)
        self.left = resident()


@pytest.fixture(scope="session")
def compiled():
    return Compiled()


@pytest.fixture(scope="module", autouse=True)
def compiled_in_full(request, compiled):
    if "quick_compile" not in request.fixturenames:
        compiled.use(quickly=False)
    yield
    compiled.keep_few_maps()


@pytest.fixture(scope="module")
def quick_compile(compiled):
    """For modules of many tiny programs, and where rounding is not what is tested."""
    compiled.use(quickly=True)


@pytest.fixture(autouse=True)
def little_memory(compiled):
    yield
    compiled.keep_small()


def resident():
    """The bytes that this process holds in memory; 0 where Linux does not say."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory_maps():
    """How many this process has; 0 where Linux does not say. When they are exhausted it crashes."""
    if sys.platform != "linux":
        return 0
    return Path("/proc/self/maps").read_bytes().count(b"\n")
