"""What a report of a bug needs to say of the machine it was seen on."""

from __future__ import annotations

import platform
from collections import Counter
from importlib.metadata import PackageNotFoundError, version

import jax

PACKAGES = (
    "jax jaxlib numpy flax optax equinox dm-haiku keras matplotlib scipy scikit-image"
).split()


def show_versions() -> None:
    """Prints the versions of lrpjax, of Python and of the libraries that it meets ("not installed"
    for those that are not there), the platform, JAX's devices, and whether JAX computes in float64.

    Nothing is loaded but JAX.
    """
    found = {"lrpjax": _version("lrpjax"), "Python": platform.python_version()}
    found |= {"platform": platform.platform(), **{name: _version(name) for name in PACKAGES}}
    found |= {"devices": _devices(), "x64": "on" if jax.config.read("jax_enable_x64") else "off"}
    print("\n".join(f"{name:16}  {said}" for name, said in found.items()))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> str:
    """2 cuda (NVIDIA H200), or why there are none."""
    try:
        counts = Counter((device.platform, device.device_kind) for device in jax.devices())
    except RuntimeError as error:
        return f"none: {' '.join(str(error).split())}"
    return ", ".join(f"{count} {where} ({kind})" for (where, kind), count in counts.items())
