"""An audit goes on from what is finished of the same audit, and from nothing else."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.nets_audit import network, pictures

import lrpjax as lrp
from lrpjax._base.fingerprint import Unstable
from lrpjax._base.locks import held

pytestmark = pytest.mark.usefixtures("quick_compile")
KEY = jax.random.key(2)


def dense(activation):
    """Two layers, the same weights whatever stands between them."""
    keys = jax.random.split(jax.random.key(0))
    shapes = {"hidden": (192, 5), "out": (5, 4)}
    weights = {n: jax.random.normal(k, s) for (n, s), k in zip(shapes.items(), keys, strict=True)}
    apply = lambda w, x: activation(x.reshape(len(x), -1) @ w["hidden"]) @ w["out"]
    return jax.tree_util.Partial(apply, weights)


def mine(factor):
    def method(model, x, target):
        return factor * jnp.asarray(x)

    return method


def audit(folder, model=None, x=None, methods=("gradient",), **options):
    model, x = dense(jax.nn.relu) if model is None else model, pictures() if x is None else x
    return lrp.audit(model, x, list(methods), key=KEY, out=folder, **options)


def epsilon(value):
    return lrp.methods.get("lrp-epsilon", epsilon=value)


OTHERS = {
    "another architecture on the same weights": (
        {"model": dense(jnp.tanh)},
        "program: another",
    ),
    "other weights": (
        {"model": jax.tree.map(lambda w: w + 1e-3, dense(jax.nn.relu))},
        "parameters: another",
    ),
    "other images": ({"x": pictures() + 1e-3}, "images: another"),
    "images of another precision": ({"x": pictures().astype("float32")}, "images: another"),
    "a function that closes over another value": (
        {"methods": [mine(2.0), epsilon(1e-6)]},
        "method method: another",
    ),
    "another method of the same name": (
        {"methods": [mine(1.0), epsilon(0.1)]},
        "method lrp-epsilon: another",
    ),
    "other settings": ({"draws": 2}, "draws: 1, now 2"),
}
FIRST = {"methods": [mine(1.0), epsilon(1e-6)]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, audit(folder, **FIRST)


@pytest.mark.parametrize("name", OTHERS)
def test_another_audit_is_refused_with_what_differs(finished, name):
    changed, said = OTHERS[name]
    with pytest.raises(ValueError) as raised:
        audit(finished[0], **{**FIRST, **changed})
    assert f"({said}" in str(raised.value) or f"; {said}" in str(raised.value)
    assert "--overwrite" in str(raised.value)


@pytest.mark.parametrize(
    "setting", [jax.enable_x64(False), jax.default_matmul_precision("float32")]
)
def test_another_precision_is_refused(finished, setting):
    with setting, pytest.raises(ValueError, match="precision"):
        audit(finished[0], **FIRST)


def test_the_same_made_again_goes_on(finished, monkeypatch):
    folder, first = finished
    before = {f.name: f.stat().st_mtime_ns for f in folder.iterdir()}
    again = audit(folder, methods=[mine(1.0), epsilon(1e-6)])
    assert again.to_json() == first.to_json()
    assert {f.name: f.stat().st_mtime_ns for f in folder.iterdir()} == before


def test_overwriting_gives_the_numbers_of_the_new_one(tmp_path):
    model = dense(jnp.tanh)
    audit(tmp_path)
    found = audit(tmp_path, model, overwrite=True)
    assert found.to_json() == audit(None, model).to_json()
    assert audit(tmp_path, model).to_json() == found.to_json()


def test_a_folder_that_is_in_use_is_refused(tmp_path):
    with held(tmp_path), pytest.raises(BlockingIOError, match="is in use \\(process "):
        audit(tmp_path)


def test_what_cannot_be_told_apart_is_refused_only_with_a_folder(tmp_path):
    held_lock = threading.Lock()

    def method(model, x, target):
        with held_lock:
            return jnp.asarray(x)

    with pytest.raises(Unstable, match=r"not be resumed \(method: .*lock.*without a folder"):
        audit(tmp_path, methods=[method])
    assert list(tmp_path.iterdir()) == []
    assert audit(None, methods=[method]).methods[0] == "method"


def test_a_model_that_calls_python_is_refused_with_a_folder(tmp_path):
    shape = jax.ShapeDtypeStruct((), pictures().dtype)
    doubled = lambda net, x: net(x) * jax.pure_callback(lambda: np.float64(2), shape)
    model = jax.tree_util.Partial(doubled, dense(jax.nn.relu))
    with pytest.raises(Unstable, match="pure_callback calls Python"):
        audit(tmp_path, model)


def test_a_method_with_a_long_or_foreign_name_has_a_piece(tmp_path):
    def method(model, x, target):
        return jnp.asarray(x)

    method.__name__ = "ä/" + "x" * 300
    found = audit(tmp_path, network(), methods=[method])
    assert audit(tmp_path, network(), methods=[method]).to_json() == found.to_json()
    assert all(f.name.isascii() for f in tmp_path.iterdir())
