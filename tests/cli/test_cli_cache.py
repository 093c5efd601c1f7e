"""What a command compiles is kept for the next, in bounds, and nowhere else."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from lrpjax.cli import cache

MODEL = """
import jax, jax.numpy as jnp

def net():
    w = jnp.sin(jnp.arange(108 * 4.0)).reshape(108, 4)
    return lambda x: jax.nn.relu(x.reshape(len(x), -1) @ w) @ jnp.cos(w[:4, :3])
"""
COUNTED = """
import json, sys
from collections import Counter
import jax
counts = Counter()
jax.monitoring.register_event_listener(lambda event, **_: counts.update([event.split("/")[-1]]))
from lrpjax.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
told = {name: counts["cache_" + name] for name in ("hits", "misses")}
print(json.dumps({**told, "folder": jax.config.jax_compilation_cache_dir}))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """`lrpjax csc` in a process of its own, which says what it compiled: (hits, misses, folder)."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "tiny.py").write_text(MODEL)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", images=pixels)
    given = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}

    def run(*options, **environment):
        order = ["csc", "--model", "tiny:net", "--images", "images.npz", "--method", "lrp-z"]
        done = subprocess.run(
            [sys.executable, "-c", COUNTED, *order, *options],
            env={**given, **environment},
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "cache" not in done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        return told["hits"], told["misses"], told["folder"]

    return run


def test_the_second_run_of_a_command_compiles_nothing(runs, tmp_path):
    hits, misses, folder = runs(LRPJAX_CACHE=str(tmp_path / "kept"))
    assert hits == 0 and misses > 20 and folder.startswith(str(tmp_path / "kept"))
    assert runs(LRPJAX_CACHE=str(tmp_path / "kept")) == (misses, 0, folder)


def test_without_the_cache_nothing_is_kept(runs, tmp_path):
    assert runs("--no-cache", LRPJAX_CACHE=str(tmp_path / "kept")) == (0, 0, None)
    assert not (tmp_path / "kept").exists()


def test_a_folder_that_cannot_be_made_is_done_without(runs, tmp_path):
    (tmp_path / "file").write_text("no folder")
    assert runs(LRPJAX_CACHE=str(tmp_path / "file")) == (0, 0, None)


@pytest.fixture
def settings():
    """JAX's settings, which are put back; what is compiled in between is kept by no test."""
    names = [name for name in jax.config.values if "cache" in name]
    before = {name: getattr(jax.config, name) for name in names}
    yield before
    for name, value in before.items():
        jax.config.update(name, value)


def test_a_cache_of_the_users_own_stays(settings, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    cache._use(tmp_path / "ours")
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
    assert not (tmp_path / "ours").exists()


def test_a_folder_of_others_is_read_and_not_written(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    jax.config.update("jax_compilation_cache_dir", None)
    cache._use(tmp_path)
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)
    assert jax.config.jax_persistent_cache_min_compile_time_secs == float("inf")


def test_the_library_itself_leaves_jax_as_it_is():
    code = (
        "import jax; before = dict(jax.config.values); import lrpjax as lrp, numpy as np\n"
        "lrp.attribute(lambda x: x @ np.ones((3, 2)), np.ones((1, 3)), 'lrp-z')\n"
        "assert before == dict(jax.config.values)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unlike_processors_have_folders_of_their_own(monkeypatch):
    own = cache._folder()
    assert own == cache._folder()
    monkeypatch.setattr(cache.platform, "machine", lambda: "another")
    assert cache._folder() != own and cache._folder().parent == own.parent


def test_what_was_used_longest_ago_goes_first(tmp_path):
    for age, name in enumerate(["newest", "middle", "oldest"]):
        (tmp_path / f"{name}-cache").write_bytes(bytes(100))
        os.utime(tmp_path / f"{name}-cache", (1000 - age, 1000 - age))
    (tmp_path / "notes.txt").write_bytes(bytes(1000))  # no entry
    cache._bound(tmp_path, most=250)
    assert {file.name for file in tmp_path.iterdir()} == {
        *("newest-cache", "middle-cache", "notes.txt")
    }
    cache._bound(tmp_path, most=0)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
