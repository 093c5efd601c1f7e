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

jax.config.update("jax_enable_x64", True)
os.environ["KERAS_BACKEND"] = "jax"
if jax.__version_info__ < (0, 11, 1):  # later ones end the process at a flag that they do not know
    # XLA's older code for loops compiles in half the time. Read when JAX first computes something.
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = flags


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


@pytest.fixture(scope="module")
def quick_compile():
    """For modules of many tiny programs: XLA compiles them three times as fast, unoptimised."""
    option = "jax_disable_most_optimizations"
    before = jax.config.values[option]
    jax.config.update(option, True)
    yield
    jax.config.update(option, before)


def forget_what_was_compiled():
    """What a compiler has freed stays with the process, 1 GB of it, until glibc is asked."""
    jax.clear_caches()
    gc.collect()
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)


@pytest.fixture(scope="module", autouse=True)
def few_memory_maps():
    """Thousands of compiled programs exhaust a process's memory maps, and it crashes."""
    yield
    forget_what_was_compiled()


@pytest.fixture(autouse=True)
def little_memory():
    yield
    if resident() > 1 << 30:
        forget_what_was_compiled()


def resident():
    """The bytes that this process holds in memory; 0 where Linux does not say."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
