"""`unknown="gradient"`: refused where relevance would be lost in whole numbers, and told where not
conserved."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

RNG = np.random.default_rng(6)
P = {"g": RNG.normal(size=(5, 3)), "e": RNG.normal(size=(3, 5, 4)), "o": RNG.normal(size=(3, 2))}
X = RNG.normal(size=(2, 5))


def mixture_by_index(p, x):
    """Top-1: the largest gate chooses an expert."""
    expert = p["e"][jnp.argmax(x @ p["g"], -1)]
    return jnp.einsum("nc,nch->nh", x, expert)


def mixture_by_one_hot(p, x):
    chosen = jax.nn.one_hot(jnp.argmax(x @ p["g"], -1), 3)
    return jnp.einsum("nc,kch,nk->nh", x, p["e"], chosen)


def thresholds(p, x):
    h = x @ p["g"]
    return (h > 0.3).astype(h.dtype) @ p["o"]


def rounded(p, x):
    return (x @ p["g"]).astype(int).astype(float) @ p["o"]


WHOLE = [mixture_by_index, mixture_by_one_hot, thresholds, rounded]


def explain(function, name, **options):
    method = lrp.methods.get(name, **options)
    return lrp.attribute(jax.tree_util.Partial(function, P), X, method, target=0)


@pytest.mark.parametrize("name", ["lrp-z", "lrp-alpha2-beta1", "deeplift-rescale"])
@pytest.mark.parametrize("function", WHOLE, ids=lambda f: f.__name__)
def test_whole_numbers_that_would_take_relevance_are_refused(function, name):
    if function is mixture_by_one_hot and name != "deeplift-rescale":
        # What is made of truth values only shows an expert, which gets all relevance.
        assert np.abs(explain(function, name)).max() > 0
        return
    with pytest.raises(NotImplementedError, match=r"truth values or integers.*test_unknown_by"):
        explain(function, name, unknown="gradient")


@pytest.mark.parametrize("function", WHOLE, ids=lambda f: f.__name__)
def test_the_plain_gradient_is_what_it_is(function):
    wanted = jax.grad(lambda x: function(P, x)[:, 0].sum())(jnp.asarray(X))
    np.testing.assert_allclose(explain(function, "gradient"), wanted, atol=1e-12)


def test_an_index_into_values_of_the_input_takes_none_and_is_not_refused():
    """The largest of some values, by its index: all relevance is that of the value."""

    def chosen(p, x):
        h = x @ p["g"]
        largest = jnp.argmax(h, -1)
        return jnp.stack([jax.vmap(lambda row, k: row[k])(h, largest)] * 2, -1)

    found = explain(chosen, "lrp-z", unknown="gradient")
    k = np.argmax(X @ P["g"], -1)
    np.testing.assert_allclose(found, X * P["g"].T[k], rtol=1e-6)


def cubed_exponential(p, x):
    """exp is no activation that is known: its gradient at large z gives exp(z) R."""
    return jnp.exp(3 * (x @ p["g"])) @ p["o"]


def test_where_the_gradient_does_not_conserve_the_share_is_told():
    with pytest.warns(UserWarning, match=r"does not conserve relevance.*sends on .* times") as told:
        found = np.asarray(explain(cubed_exponential, "lrp-z", unknown="gradient"))
    z = np.exp(3 * (X @ P["g"]))
    arrives = z * P["o"][:, 0]  # at the exponential; what its gradient sends on is z times that
    share = np.abs((z * arrives).sum(1)).sum() / np.abs(arrives.sum(1)).sum()
    (shown,) = re.findall(r"sends on ([\d.e+-]+) times", str(told[0].message))
    assert float(shown) == pytest.approx(share, rel=1e-2)
    np.testing.assert_allclose(found.sum(1), (z * arrives).sum(1), rtol=1e-5)


def test_where_it_conserves_nothing_is_said():
    sorted_ = lambda p, x: jnp.sort(x @ p["g"], -1) @ p["o"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = np.asarray(explain(sorted_, "lrp-z", unknown="gradient"))
    np.testing.assert_allclose(found.sum(1), sorted_(P, X)[:, 0], rtol=1e-6)


def test_where_deeplift_is_not_complete_it_is_told():
    """x^2 by its gradient at x, from 0: 2 x^2, twice what it rises."""
    rng = np.random.default_rng(0)
    w, v = rng.normal(size=(4, 3)), rng.normal(size=(3, 2))
    x = rng.normal(size=(2, 4))
    method = lrp.methods.get("deeplift-rescale", unknown="gradient")
    with pytest.warns(UserWarning, match=r"do not add up to f\(x\) - f\(baseline\)"):
        found = lrp.attribute(lambda x: jnp.square(x @ w) @ v, x, method, target=0)
    np.testing.assert_allclose(found.sum(1), 2 * (np.square(x @ w) @ v)[:, 0], rtol=1e-6)


def test_where_deeplift_is_complete_nothing_is_said(recwarn):
    """Below 0 |x| is -x, as far as its gradient goes."""
    method = lrp.methods.get("deeplift-rescale", unknown="gradient")
    lrp.attribute(lambda x: jnp.abs(x) @ np.ones((3, 2)), -np.ones((2, 3)), method, target=0)
    assert not [w for w in recwarn if "add up" in str(w.message)]
