"""Parameter randomisation: keys, chunks, layouts, precision, and how often XLA compiles."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracle_sanity as oracle
from helpers.nets_sanity import close, compilations, forward, gradient_times_input, model
from helpers.vit import vit
from jax.tree_util import Partial

import lrpjax as lrp
from lrpjax.sanity.maps import Subject

EXACT = 1e-9  # absolute, of similarities of maps that differ by rounding
KEY = jax.random.key(0)
TRAINED, RANDOM = oracle.parameters(0), oracle.parameters(1)
X = oracle.images(4)
MODEL = model(TRAINED)
METHODS = pytest.mark.parametrize(
    "method", ["gradient", gradient_times_input], ids=["name", "function"]
)
pytestmark = pytest.mark.usefixtures("quick_compile")


def fixed(p=RANDOM):
    return lambda key: model(p)


def mprt(method="gradient", images=X, network=MODEL, **options):
    options = {"key": KEY, "init": fixed(), **options}
    return lrp.sanity.mprt(network, images, method, **options)


# --- keys, chunks and layouts -----------------------------------------------------------------


@METHODS
def test_the_same_key_gives_the_same_whatever_the_chunk(method):
    options = {"init": None, "draws": 3, "similarity": ("ssim", "spearman")}
    whole = mprt(method, **options).rows
    assert mprt(method, **options).rows == whole  # bit for bit
    for chunk in (1, 2, 3, 100):
        for row, expected in zip(mprt(method, chunk=chunk, **options).rows, whole, strict=True):
            close(row, oracle.known(expected["values"]), EXACT)
            for bound in ("low", "high"):
                assert row[bound] == pytest.approx(expected[bound], abs=EXACT)
    other = mprt(method, **{**options, "key": jax.random.key(1)}).rows
    assert all(a["median"] != b["median"] for a, b in zip(other, whole, strict=True))


def test_weights_do_not_count_for_how_many_images_run_at_once():
    wide = Partial(lambda w, x: x @ w, jnp.ones((4096, 5120), jnp.float32))  # 80 MiB
    images = np.ones((300, 4096), np.float32)
    assert Subject(wide, images, "gradient", target=0).chunk == 150
    many = Partial(lambda w, x: x[..., None] * w, jnp.ones(2**14, jnp.float32))  # 64 KiB a pixel
    large = lambda x: many(x).sum((1, 2))[:, None] * jnp.ones(2)
    assert Subject(large, np.ones((300, 64), np.float32), "gradient", target=0).chunk == 64 // 4


def test_keys_of_the_old_kind_draw_as_the_new_ones_do():
    options = {"init": None, "similarity": "pearson"}
    old = mprt(**options, key=jax.random.PRNGKey(3)).rows
    new = mprt(**options, key=jax.random.key(3)).rows
    assert [row["values"] for row in old] == [row["values"] for row in new]


def test_channels_are_those_of_the_graph():
    """As many channels as rows and columns: nothing but the graph says which axis they are."""
    trained, random = (oracle.parameters(seed, channels=oracle.SIZE) for seed in (0, 1))
    x = oracle.images(3, channels=oracle.SIZE)
    first = lambda p: Partial(lambda p, x: forward(p, x, "NCHW"), model(p).args[0])
    last = mprt(images=x, network=model(trained), init=fixed(random)).rows
    turned = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    rows = mprt(images=turned, network=first(trained), init=lambda key: first(random)).rows
    for row, expected in zip(rows, last, strict=True):
        assert row["layer"] == expected["layer"]
        close(row, oracle.known(expected["values"]), EXACT)


def test_a_network_in_single_precision_has_the_rows_of_double():
    exact = mprt(similarity="pearson").rows
    x, network = X.astype(np.float32), model(TRAINED, np.float32)
    init = lambda key: model(RANDOM, np.float32)
    for row, expected in zip(
        mprt(images=x, network=network, init=init, similarity="pearson").rows, exact, strict=True
    ):
        close(row, oracle.known(expected["values"]), 1e-4)


@METHODS
def test_init_may_draw_in_another_precision(method):
    """Its parameters become those of the model, whose program computes as it did."""
    dense = lambda p, x: jnp.tanh(x @ p["fc"]["kernel"] + p["fc"]["bias"])
    draw = lambda seed: {
        name: np.random.default_rng(seed).normal(size=shape)
        for name, shape in (("kernel", (8, 3)), ("bias", 3))
    }
    network = lambda seed, dtype: model({"fc": draw(seed)}, dtype, function=dense)
    x = np.random.default_rng(2).normal(size=(3, 8)).astype(np.float32)
    options = {"images": x, "network": network(0, np.float32), "similarity": "cosine"}
    rows = [
        mprt(method, init=lambda key, dtype=dtype: network(1, dtype), colour="none", **options).rows
        for dtype in (np.float32, np.float64)
    ]
    for row, expected in zip(*rows, strict=True):
        close(row, oracle.known(expected["values"]), 1e-6)


# --- cost and care ----------------------------------------------------------------------------


def deep(p, x):
    for layer in p.values():
        x = jnp.tanh(x @ layer["kernel"])
    return x


@pytest.mark.parametrize(
    "method", ["gradient", "lrp-epsilon", gradient_times_input], ids=["1", "2", "function"]
)
@pytest.mark.parametrize("draws", [1, 3])
def test_one_compilation_serves_all_stops_and_draws(method, draws):
    """Twelve equal layers: twelve stops compile what two compile."""
    rng = np.random.default_rng(4)
    p = {f"fc{i:02}": {"kernel": rng.normal(size=(9, 9)) / 3} for i in range(12)}
    x = rng.normal(size=(3, 9))
    counts = []
    for layers in (["fc00", "fc11"], None):
        jax.clear_caches()
        with compilations() as compiled:
            lrp.sanity.mprt(
                model(p, function=deep), x, method,
                key=KEY, layers=layers, draws=draws, similarity="cosine", colour="none",
            )  # fmt: skip
        counts.append(len(compiled))
    assert 0 < counts[1] <= counts[0]


def test_the_model_stays_as_it_was():
    network = vit(constants=True)
    x = jax.random.uniform(KEY, (2, 16, 16, 3))
    before = np.asarray(network(x))
    lrp.sanity.mprt(network, x, "gradient", key=KEY)
    assert (np.asarray(network(x)) == before).all()
    assert lrp.attribute(network, x, "gradient").shape == x.shape
