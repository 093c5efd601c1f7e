"""CSC and randomisation of generated networks: no rewriting changes a row, and maps of random
parameters are the oracle's."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import lrpjax as lrp

from . import backward
from .blocks_special import dead_end, one_channel, tied
from .check import case, library_method, plain
from .draw import draw
from .program import Style, function, laid, model
from .rewriting import REWRITINGS, merged
from .shares import METHODS

pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.filterwarnings("ignore:.*(uniform|epsilon|relevance|constants|bias)"),
]

KEY = jax.random.key(7)
BY_NAME = {str(m): m for m in METHODS}
SAME = 1e-9


def rows_of(net, style, method, *, flat=False):
    """The rows of the layers with parameters and of the input, by name: names of others hang on how
    a network is spelled."""
    given, x = model(net, style, net.params), laid(net, style, net.x)
    if flat:
        whole = function(net, style)
        seen = lambda p, x: whole(p, x.reshape(len(x), *net.x.shape[1:]))
        given = jax.tree_util.Partial(seen, net.params)
        x = x.reshape(len(x), -1)
    found = lrp.convergence.csc(given, x, method, key=KEY, vectors=3)
    return {row["layer"]: row for row in found.rows if row["layer"] in {"input", *net.params}}


def assert_alike(rows, wanted):
    assert rows.keys() == wanted.keys()
    for name, row in wanted.items():
        for column in ("channels", "count", "dropped", "undirected"):
            assert rows[name][column] == row[column], (name, column)
        for column in ("median", "mean"):
            assert rows[name][column] == (row[column] and pytest.approx(row[column], rel=SAME))


WAYS = {
    "NCHW": lambda style: replace(style, nchw=True),
    "vmap": lambda style: replace(style, outer="vmap"),
    "merged": lambda style: replace(style, touches=dict.fromkeys(range(1000), merged)),
    "rows of one matrix": lambda style: replace(style, rows=True),
    "flat images": lambda style: style,
}


def in_tokens_or_images(net):
    """Whether a dense layer without a bias, so that nothing is behind it, is at several places."""
    bare = (n for n in net.nodes if n.kind == "dense" and "bias" not in net.params[n.param])
    return len(net.nodes[0].shape) == 3 and any(len(n.shape) > 1 for n in bare)


@pytest.mark.parametrize("way", WAYS)
def test_no_layout_changes_a_row_of_csc(way):
    """The same draws at the logits, along images; of the two in NCHW the gradient's sums differ."""
    nets = (draw(seed) for seed in range(200, 10**4))
    net = next(n for n in nets if in_tokens_or_images(n) and not n.refused)
    style = Style(3, wrapped=0)
    method = lrp.methods.get("gradient", fold=net.fold)
    flat = way == "flat images"
    assert_alike(rows_of(net, WAYS[way](style), method, flat=flat), rows_of(net, style, method))


def test_a_branch_without_relevance_has_rows_of_count_0_and_changes_no_other():
    drawn = case(5, BY_NAME["lrp-z"], REWRITINGS[0], holding=dead_end)
    net, style = drawn.net, drawn.style
    rows = rows_of(net, style, library_method(drawn))
    (by,) = [i for i, node in enumerate(net.nodes) if node.get("by") == -1000.0]
    dead = [net.nodes[by - 1].param, net.nodes[by + 2].param]
    assert all(rows[name]["count"] == 0 for name in dead)
    assert all(rows[name]["undirected"] == "no relevance" for name in dead)
    assert rows["input"]["count"] > 0


def test_one_channel_has_no_direction_and_the_others_have():
    drawn = case(6, BY_NAME["lrp-z"], REWRITINGS[0], holding=one_channel)
    rows = rows_of(drawn.net, drawn.style, library_method(drawn))
    narrow = [n.param for n in drawn.net.nodes if n.kind == "dense" and n.shape[-1] == 1]
    assert narrow
    for name in narrow:
        assert (rows[name]["undirected"], rows[name]["median"]) == ("one channel", None)


@pytest.mark.parametrize("seed", range(3))
def test_a_parameter_is_randomised_once_at_its_uppermost_use(seed):
    """The similarities of one layer's randomisation at a time, from maps of the oracle."""
    # BatchNorm's parameters are those of the product in front; of ties the oracle does not say.
    others, seeds = {"affine", "max_pool", "max_over"}, range(seed, 10**4, 3)
    cases = (case(s, BY_NAME["input-x-gradient"], REWRITINGS[0], holding=tied) for s in seeds)
    drawn = next(c for c in cases if others.isdisjoint(n.kind for n in c.net.nodes))
    drawn = replace(drawn, style=replace(drawn.style, outer="jit"))
    net, (network, x) = drawn.net, plain(drawn)
    rng = np.random.default_rng(seed)
    other = {
        name: {k: v + rng.normal(size=v.shape) / 3 if k != "var" else v for k, v in own.items()}
        for name, own in net.params.items()
    }
    init = lambda key: model(net, drawn.style, other)
    found = lrp.sanity.mprt(
        network, x, "input-x-gradient", key=KEY, target=1, order="single", init=init,
        similarity="pearson", colour="none",
    )  # fmt: skip
    explain = lambda params: backward.relevance(
        net.with_params(params), drawn.method, net.x, np.eye(3)[[1, 1]]
    ).reshape(2, -1)
    before = explain(net.params)
    sizes = {k: sum(v.size for v in p.values()) for k, p in net.params.items()}
    uses = {name: [n for n in net.nodes if n.param == name] for name in net.params}
    # A layer is named after its parameter, or shares it with one that is.
    rows = {(row["shared"] or [row["layer"]])[0]: row for row in found.rows}
    assert rows.keys() == net.params.keys()
    for name, row in rows.items():
        assert row["share"] == pytest.approx(sizes[name] / sum(sizes.values()))
        assert len(row["shared"]) == len(uses[name]) - 1
        after = explain({**net.params, name: other[name]})
        with np.errstate(invalid="ignore"):  # a map of zeros is like nothing, and has no value
            wanted = [np.corrcoef(a, b)[0, 1] for a, b in zip(before, after, strict=True)]
        values = [np.nan if value is None else value for value in row["values"]]
        np.testing.assert_allclose(values, wanted, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_computes_something_else_for_one_image_is_found(seed):
    drawn = case(seed, BY_NAME["gradient"], REWRITINGS[0])
    network, x = plain(drawn)
    lrp.vjp(network, x, "gradient", check=True)
    odd = lambda x: network(x) if len(x) > 1 else 2 * network(x)
    with pytest.raises(ValueError, match=r"an example by itself"):
        lrp.vjp(odd, x, "gradient", check=True)


@pytest.mark.parametrize("seed", range(4))
def test_a_batch_of_no_images_has_a_map_of_none(seed):
    drawn = case(seed, METHODS[(5 * seed) % len(METHODS)], REWRITINGS[0])
    network, x = plain(drawn)
    out, pull = lrp.vjp(network, x[:0], library_method(drawn), check=True)
    assert out.shape == (0, 3) and pull(out).shape == x[:0].shape
