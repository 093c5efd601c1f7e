"""The networks of ImageNet against a build of them in plain torch, and relevance on them.

reference_weights.py draws the weights and the images; reference/make_models.py made the arrays.
"""

import gc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import reference_weights as given

import lrpjax as lrp
from lrpjax.graph.reading import environment, read
from lrpjax.models import resnet, vgg
from lrpjax.planning.ledger import measured

pytestmark = pytest.mark.usefixtures("quick_compile")
slow = pytest.mark.slow
on = lambda *names: pytest.mark.parametrize("network", names, indirect=True)

# Of the largest entry. Up to 50 layers in single precision.
FLOAT32 = 1e-4
# A max-pool in which two entries are equal but for rounding may pass relevance to the other one.
FLOAT32_MAP = 1e-3
EXACT = 1e-12
# What the stabilisers, 1e-9 in each denominator, may do to relevance of about 1.
STABILISED = 1e-6

ARRAYS = dict(np.load(Path(__file__).parents[1] / "reference" / "models.npz"))
SIDE = 64  # of the small image, which is explained in double precision


def torchs(part):
    """What torch found, by name, for a network at full size or for the "small" image."""
    return {k.removeprefix(f"{part} "): v for k, v in ARRAYS.items() if k.startswith(f"{part} ")}


@pytest.fixture(scope="module")
def network(request, tmp_path_factory):
    """The name of a network, and the network from a file as torchvision has it."""
    gc.collect()  # the network before this one, which refers to itself
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.safetensors"
    given.write(request.param, path)
    model = getattr(lrp.models, request.param)(path)
    path.unlink()
    return request.param, model


def in_double(network):
    """The network and the small image in double precision."""
    x = jnp.asarray(given.preprocessed()[:1, :SIDE, :SIDE])
    return jax.tree.map(lambda leaf: leaf.astype(x.dtype), network[1]), x


def values(model, x, names):
    """What these layers compute."""
    reading = read(model, x)
    graph = reading.graph

    def run(consts, leaves):
        env = environment(graph, consts, leaves)
        return {name: env[graph.by_name[name].outputs[0]] for name in names}

    return jax.jit(run)(reading.consts, reading.leaves)


def assert_close(found, wanted, tolerance):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


# --- the networks --------------------------------------------------------------------------------


@slow
@on(*given.VGG, *given.RESNET)
def test_logits_and_the_end_of_each_stage_are_torchs(network):
    name, model = network
    x, wanted = model.preprocess(given.images()), torchs(name)
    logits = wanted["logits"]
    assert_close(jax.jit(lambda model, x: model(x))(model, x), logits, FLOAT32)
    assert np.median(np.abs(logits[0] - logits[1])) > 50 * FLOAT32 * np.abs(logits).max()
    stages = [k for k in wanted if k.startswith(("pool", "maxpool", "block"))]
    assert len(stages) == 5
    for stage, value in values(model, x, stages).items():
        assert_close(given.glimpse(np.asarray(value)), wanted[stage], FLOAT32)


KINDS = {
    "resnet50": {"conv": 53, "dense": 1, "relu": 49, "add": 16, "max_pool": 1, "sum": 1},
    "vgg16": {"conv": 13, "dense": 3, "relu": 15, "max_pool": 5, "structure": 1},
}
NAMES = {
    "resnet50": "conv1 maxpool conv2_1a conv2_1b conv2_1c conv2_skip block2_1 block3_2 conv4_6c "
    "conv5_skip block5_3 avgpool dense",
    "vgg16": "conv1_1 conv1_2 conv2_1 conv2_2 conv3_1 conv3_2 conv3_3 conv4_1 conv4_2 conv4_3 "
    "conv5_1 conv5_2 conv5_3 pool1 pool2 pool3 pool4 pool5 flatten fc1 fc2 fc3",
}


@slow
@on(*KINDS)
def test_plan_finds_the_papers_layers_and_nothing_else(network):
    name, model = network
    plan = lrp.plan(model, jax.ShapeDtypeStruct((1, 224, 224, 3), "float32"), "lrp-zplus")
    assert Counter(row["kind"] for row in plan.rows) == KINDS[name]
    printed = [line.split()[0] for line in str(plan).splitlines()]
    assert set(NAMES[name].split()) <= set(printed)


@slow
@on("vgg16", "resnet50")
def test_folded_layers_compute_what_the_network_does_and_zplus_loses_nothing(network):
    name, model = network
    x = model.preprocess(given.images())
    check = lrp.plan(model, x, "lrp-zplus").check(x)
    assert check.forward_difference < 1e-5
    explained = torchs(name)["logits"].max(1).sum()
    np.testing.assert_allclose(check.rows[-1]["relevance_out"], explained, rtol=FLOAT32)
    for row in check.rows:
        lost = [row["bias"], row["stabiliser"], row["lost"], row["grown"]]
        np.testing.assert_allclose(lost, 0, atol=FLOAT32 * explained, err_msg=row["layer"])


# --- relevance -----------------------------------------------------------------------------------


@slow
@on("vgg16", "resnet18", "resnet50")
def test_zplus_is_torchs_and_sums_to_the_logit(network):
    name, model = network
    wanted = torchs(name)
    x, target = model.preprocess(given.images()), wanted["target"]
    found = np.asarray(lrp.attribute(model, x, "lrp-zplus", target=target))
    assert_close(given.windows(found, 14), wanted["lrp-zplus"], FLOAT32_MAP)
    logits = wanted["logits"][[0, 1], target]
    assert (np.sign(logits) == [1, -1]).all()
    np.testing.assert_allclose(found.sum((1, 2, 3)), logits, rtol=FLOAT32)


COMPARED = set(torchs("small")) - {"target", "explained"}
CHAINS = {n for n, e in lrp.methods.TABLE.items() if e.chain and e.needs in ("", "input_range")}


@pytest.mark.parametrize("method", sorted(COMPARED))
@on("resnet18")
def test_relevance_is_torchs_to_the_last_digits(network, method):
    model, x = in_double(network)
    wanted = torchs("small")
    chosen = lrp.methods.resolve(method, model)
    torchs_stabiliser = lrp.composites.stabilised(chosen.composite, 1e-9)
    absolute = replace(chosen, composite=torchs_stabiliser)
    found = lrp.attribute(model, x, absolute, target=wanted["target"])
    assert_close(given.windows(np.asarray(found), 8), wanted[method], EXACT)


def positive(g, y):
    return jnp.maximum(g, 0)


def of_those_above_the_percentile(g, y):
    """Kim et al. 2019: what is above the 98th percentile of activation times relevance."""
    return jnp.where(y * g > jnp.percentile(y * g, 98, method="nearest"), g, 0)


CUT = {  # what an activation y hands on of what arrives at it, and whether its derivative cuts it
    "guided-bp": (positive, True),
    "deconv": (positive, False),
    "rect-grad": (of_those_above_the_percentile, True),
}


@pytest.mark.parametrize("method", CUT)
@on("resnet18")
def test_a_method_that_cuts_is_the_gradient_with_another_relu(network, method, monkeypatch):
    """One image: the percentile is over all units of a layer."""
    model, x = in_double(network)
    kept, cuts = CUT[method]
    relu = jax.custom_vjp(lambda x: jnp.maximum(x, 0))
    back = lambda y, g: (kept(g, y) * (y > 0 if cuts else 1),)
    relu.defvjp(lambda x: (jnp.maximum(x, 0), jnp.maximum(x, 0)), back)
    found = lrp.attribute(model, x, method, target=3)
    monkeypatch.setattr(nnx, "relu", relu)
    wanted = jax.grad(lambda x: model(x)[0, 3])(x)
    assert_close(np.asarray(found), np.asarray(wanted), EXACT)


@on("resnet18")
def test_input_times_gradient_is_that_of_torch(network):
    model, x = in_double(network)
    found = lrp.attribute(model, x, "input-x-gradient", target=3)
    alone = lrp.attribute(model, x, "gradient", target=3)
    assert_close(given.windows(np.asarray(alone), 8), torchs("small")["gradient"], EXACT)
    assert_close(np.asarray(found), np.asarray(x * alone), EXACT)


@pytest.mark.parametrize("method", ["lrp-alpha1-beta0", "excitation-bp"])
@on("resnet18")
def test_alpha1_beta0_is_zplus_and_excitation_bp_its_share(network, method):
    """What adds up in a residual network is positive, so that the rules differ in their start."""
    model, x = in_double(network)
    wanted = torchs("small")
    found = np.asarray(lrp.attribute(model, x, method, target=3))
    logit = float(model(x)[0, 3])
    start = 1 if method == "excitation-bp" else logit
    np.testing.assert_allclose(found.sum(), start, rtol=STABILISED)
    assert_close(given.windows(found, 8) / start * logit, wanted["lrp-zplus"], STABILISED)


@pytest.mark.parametrize("method", ["deeplift-rescale", "deeplift-reveal-cancel"])
@on("resnet18")
def test_deeplift_is_complete_on_a_residual_network(network, method):
    model, x = in_double(network)
    found = np.asarray(lrp.attribute(model, x, method, target=3)).sum()
    logits = model(jnp.concatenate([x, jnp.zeros_like(x)]))[:, 3]
    np.testing.assert_allclose(found, logits[0] - logits[1], rtol=1e-9)


ACCOUNTED = CHAINS - COMPARED - {*CUT, "input-x-gradient", "lrp-alpha1-beta0", "excitation-bp"}
ACCOUNTED -= {name for name in CHAINS if name.startswith("deeplift")}


@pytest.mark.parametrize("method", sorted(ACCOUNTED))
@on("resnet18")
def test_the_ledger_of_a_residual_network_adds_up(network, method):
    """Each layer's relevance arrives, or ends where a rule's own numerators say."""
    model, x = in_double(network)
    chosen = lrp.methods.resolve(method, model)
    book = measured(read(model, x), chosen, 3)
    conserving = [row for row in book.rows if row["residual"] is not None]
    assert len(conserving) > 20 and all(row["balanced"] for row in conserving)
    found = np.asarray(lrp.attribute(model, x, chosen, target=3))
    np.testing.assert_allclose(found.sum(), book.rows[0]["relevance_in"], rtol=EXACT * 1e3)


@on("resnet18")
def test_deeplift_of_an_ablation_sees_one_image_as_if_it_were_alone(network):
    model, x = in_double(network)
    both = jnp.concatenate([x, x[:, ::-1]])
    alone, beside = (lrp.attribute(model, v, "deeplift-ablation", target=3) for v in (x, both))
    assert_close(np.asarray(beside[0]), np.asarray(alone[0]), EXACT * 1e3)


def test_torch_ran_methods_of_the_table():
    assert len(COMPARED) == 7 and COMPARED < CHAINS


@on("resnet18")
def test_another_epsilon_of_batch_norm_is_noticed(network):
    model, x = in_double(network)
    model.bn2_1a.epsilon *= 1.001
    found = lrp.attribute(model, x, "lrp-zplus", target=3)
    wanted = torchs("small")["lrp-zplus"]
    off = np.abs(given.windows(np.asarray(found), 8) - wanted).max()
    assert off > 1000 * EXACT * np.abs(wanted).max()


# --- conservation --------------------------------------------------------------------------------


@slow
@on("vgg11")
def test_deep_taylor_of_preprocessed_images_sums_to_the_logit(network):
    name, model = network
    x, target = model.preprocess(given.images()), np.array([3, 600])
    low, high = (np.subtract(level, given.MEAN) / given.STD for level in (0, 1))
    np.testing.assert_allclose(model.input_range, [low, high])
    found = np.asarray(lrp.attribute(model, x, "deep-taylor", target=target))
    logits = torchs(name)["logits"][[0, 1], target]
    np.testing.assert_allclose(found.sum((1, 2, 3)), logits, rtol=FLOAT32)


@on("resnet18")
def test_deep_taylor_refuses_images_without_preprocessing(network):
    with pytest.raises(ValueError, match=r"-2\.1179 to 2\.64 .*0 to 255: pass model\.preprocess"):
        lrp.attribute(network[1], given.images(), "deep-taylor", target=3)


@on("resnet18")
def test_deep_taylor_refuses_one_channel_out_of_its_bounds(network):
    x = network[1].preprocess(given.images())
    x = x.at[..., 0].set(2.5)  # green and blue reach 2.43 and 2.64, red 2.25
    with pytest.raises(ValueError, match=r"and \(2\.24891, .* to \(2\.5, "):
        lrp.attribute(network[1], x, "deep-taylor", target=3)


def bias_shares(model, x, target):
    """By layer b * df/db: what the z rule gives to the bias, folded where there is BatchNorm."""
    slope = jax.jit(jax.grad(lambda model: model(x)[0, target]))(model)
    shares = {"dense": np.sum(model.dense.bias[...] * slope.dense.bias[...])}
    for name, bn in vars(model).items():
        if isinstance(bn, nnx.BatchNorm):
            scale, shift, mean, var = (np.asarray(v) for v in (bn.scale, bn.bias, bn.mean, bn.var))
            b = shift - mean * scale / np.sqrt(var + bn.epsilon)
            shares[name.replace("bn", "conv")] = np.sum(b * getattr(slope, name).bias[...])
    return shares


@on("resnet18")
def test_lrp_z_loses_to_each_bias_what_autodiff_says_and_nothing_else(network):
    model, x = in_double(network)
    shares = bias_shares(model, x, 3)
    rows = lrp.plan(model, x, "lrp-z").check(x, target=3).rows
    assert len(shares) == 21 and sum(map(abs, shares.values())) > 1
    for row in rows:
        np.testing.assert_allclose(row["bias"], shares.get(row["layer"], 0), atol=STABILISED)
        np.testing.assert_allclose(
            [row["stabiliser"], row["lost"], row["grown"]], 0, atol=STABILISED
        )
    left = torchs("small")["explained"] - sum(shares.values())
    np.testing.assert_allclose(rows[0]["relevance_in"], left, rtol=STABILISED)


@on("resnet18")
def test_lrp_epsilon_loses_to_the_bias_and_to_epsilon(network):
    model, x = in_double(network)
    rows = lrp.plan(model, x, "lrp-epsilon").check(x, target=3).rows
    lost = {k: np.array([row[k] for row in rows]) for k in ("bias", "stabiliser", "lost", "grown")}
    left = torchs("small")["explained"] - lost["bias"].sum() - lost["stabiliser"].sum()
    np.testing.assert_allclose(rows[0]["relevance_in"], left, rtol=EXACT)
    np.testing.assert_allclose(lost["lost"] + lost["grown"], 0, atol=EXACT)
    assert 0 < np.abs(lost["stabiliser"]).max() < 1e-3 < np.abs(lost["bias"]).max()


SHORTCUTS = {
    "block2_1": "maxpool",
    "block2_2": "block2_1:relu",
    "block3_1": "conv3_skip",
    "block3_2": "block3_1:relu",
    "block4_1": "conv4_skip",
    "block4_2": "block4_1:relu",
    "block5_1": "conv5_skip",
    "block5_2": "block5_1:relu",
}


@on("resnet18")
def test_alpha2_beta1_doubles_relevance_where_both_terms_of_an_addition_are_positive(network):
    """There is nothing negative to take beta from, so alpha is left. Nothing else is gained."""
    model, x = in_double(network)
    branches = {block: f"{block.replace('block', 'conv')}b" for block in SHORTCUTS}
    terms = values(model, x, [*SHORTCUTS.values(), *branches.values()])
    out, propagate = lrp.vjp(model, x, "lrp-alpha2-beta1", layers=list(SHORTCUTS))
    logit = float(out[0, 3])
    found, at = jax.tree.map(np.asarray, propagate(logit * np.eye(1, 1000, 3)))
    positive = lambda name: np.asarray(terms[name]) >= 0
    gains = [at[b][positive(SHORTCUTS[b]) & positive(branches[b])].sum() for b in SHORTCUTS]
    np.testing.assert_allclose(found.sum(), logit + sum(gains), rtol=STABILISED)
    assert found.sum() > 40 * logit


# --- training mode -------------------------------------------------------------------------------

NARROW = {
    "resnet18": lambda key: resnet.build(18, "random", key=key, width=2),
    "vgg11": lambda key: vgg.build(11, "random", key=key, width=2, hidden=4),
}


@pytest.mark.parametrize("name", NARROW)
def test_a_network_in_training_mode_is_told_how_to_leave_it(name, getkey):
    model = NARROW[name](getkey())
    x = model.preprocess(given.images())
    model.train()
    for method in ("lrp-epsilon", "gradient"):
        with pytest.raises(ValueError, match=r"model\.eval\(\) in nnx"):
            lrp.attribute(model, x, method, target=3)
    model.eval()
    found = lrp.attribute(model, x, "gradient", target=3)
    wanted = jax.jit(jax.grad(lambda x: model(x)[:, 3].sum()))(x)
    assert_close(found, wanted, FLOAT32)
