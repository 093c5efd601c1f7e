"""Models and methods that show what was randomised: used by the tests of lrpjax.sanity."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial

from helpers import oracle_sanity as oracle

# --- the network of the oracle, in JAX --------------------------------------------------------


def forward(p, x, layout="NHWC"):
    numbers = (layout, "HWIO", layout)
    wide = (lambda b: b) if layout == "NHWC" else (lambda b: b[:, None, None])
    for layer in (p["conv1"], p["conv2"]):
        z = lax.conv_general_dilated(x, layer["kernel"], (1, 1), "SAME", dimension_numbers=numbers)
        x = jnp.maximum(z + wide(layer["bias"]), 0)
    x = x if layout == "NHWC" else x.transpose(0, 2, 3, 1)
    return x.reshape(len(x), -1) @ p["fc"]["kernel"] + p["fc"]["bias"]


def model(p, dtype=np.float64, function=forward):
    return Partial(function, jax.tree.map(lambda a: jnp.asarray(a, dtype), p))


def gradient_times_input(model, x, target):
    """A method of the user's own, of the target's logit."""
    explained = lambda x: jnp.take_along_axis(model(x), target[:, None], 1).sum()
    return x * jax.grad(explained)(x)


# --- weights that can be read off the output --------------------------------------------------


def heads(p, x):
    """Layers side by side, one for each kernel: (N, d) to (N, their outputs)."""
    return jnp.concatenate([x @ layer["kernel"] for layer in p.values()], axis=-1)


def units(d):
    """The images at which `heads` (or any linear model) shows its weights, row by row."""
    return np.eye(d)


class Recorder:
    """A method that is the same for every model, and keeps what each model gave.

    Works inside of jit, vmap and scan as well. `outputs` are those of whole batches.
    """

    def __init__(self, map_=lambda model, x, target: x + 1 + jnp.arange(x.shape[-1])):
        self.map_, self.calls = map_, []

    @property
    def method(self):
        def recorded(model, x, target):
            out = model(x)
            jax.debug.callback(self._add, x, out, target)
            return self.map_(model, x, target)

        return recorded

    def _add(self, x, out, target):
        self.calls.append(tuple(np.array(a) for a in (x, out, target)))

    @property
    def outputs(self):
        """What the models gave, each different one once, the trained model's first."""
        jax.effects_barrier()
        seen = {}
        for _, out, _ in self.calls:
            seen.setdefault(out.tobytes(), out)
        return list(seen.values())

    @property
    def inputs(self):
        jax.effects_barrier()
        return [x for x, _, _ in self.calls]

    @property
    def targets(self):
        jax.effects_barrier()
        return [target for _, _, target in self.calls]


def split(out, p):
    """The kernels of `heads` at `units`, by layer: a pytree has its keys in order."""
    widths = np.cumsum([p[name]["kernel"].shape[1] for name in sorted(p)])[:-1]
    return dict(zip(sorted(p), np.split(out, widths, axis=1), strict=True))


# --- counting compilations --------------------------------------------------------------------


@contextmanager
def compilations() -> Iterator[list[str]]:
    """The list of what XLA compiles inside."""
    found = []

    def listen(event, duration, **kwargs):
        if event.endswith("backend_compile_duration"):
            found.append(kwargs.get("fun_name", ""))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def close(row, expected, atol):
    """Whether a row is the summary of these values (N,), NaN where there are none."""
    np.testing.assert_allclose(oracle.known(row["values"]), expected, rtol=0, atol=atol)
    median, dropped = oracle.summary(expected)
    assert row["dropped"] == dropped
    np.testing.assert_allclose(row["median"], median, rtol=0, atol=atol)
