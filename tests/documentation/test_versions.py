"""`lrpjax.show_versions` says what is there, and loads nothing to find out."""

import subprocess
import sys
from importlib import metadata

import jax
import pytest

import lrpjax
from lrpjax._base import versions


@pytest.fixture
def shown(capsys):
    """What is printed, by its first word."""

    def call():
        assert lrpjax.show_versions() is None
        out, err = capsys.readouterr()
        assert not err
        return dict(line.split(maxsplit=1) for line in out.splitlines())

    return call


def test_versions_are_those_that_are_installed(shown):
    found = shown()
    assert found["lrpjax"] == lrpjax.__version__
    assert found["Python"] == ".".join(map(str, sys.version_info[:3])) and found["platform"]
    assert found["numpy"] == sys.modules["numpy"].__version__
    installed = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    wanted = "jax jaxlib flax optax equinox dm-haiku keras matplotlib scipy scikit-image"
    for name in wanted.split():
        assert found[name] == installed.get(name, "not installed")
    assert found["devices"] == f"{len(jax.devices())} cpu (cpu)"


@pytest.mark.parametrize("x64", [True, False])
def test_it_says_whether_numbers_are_double(shown, x64):
    with jax.enable_x64(x64):
        assert shown()["x64"] == ("on" if x64 else "off")


def test_what_is_missing_is_not_installed(shown, monkeypatch):
    monkeypatch.setattr(versions, "PACKAGES", ["jax", "no-such-package"])
    found = shown()
    assert found["jax"] == jax.__version__ and found["no-such-package"] == "not installed"


def test_devices_that_cannot_be_reached_are_no_error(shown, monkeypatch):
    def devices():
        raise RuntimeError("Unable to initialize backend 'cuda':\nno driver")

    monkeypatch.setattr(jax, "devices", devices)
    assert shown()["devices"] == "none: Unable to initialize backend 'cuda': no driver"


def test_nothing_is_loaded_but_jax():
    names = "flax optax equinox haiku keras matplotlib skimage orbax rich".split()
    script = (
        "import sys, lrpjax\n"
        "assert 'jax' not in sys.modules\n"
        "lrpjax.show_versions()\n"
        f"assert not {set(names)} & set(sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0 and "jaxlib" in ran.stdout, ran.stderr
