"""What people give in the place of what is wanted: one sentence with what it is and what to do."""

import pathlib
import re
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from PIL import Image

import lrpjax as lrp
from lrpjax import composites, rules

pytestmark = pytest.mark.usefixtures("quick_compile")

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
W = np.random.default_rng(1).normal(size=(3, 5)).astype("float32")


def forward(p, x):
    return jax.nn.relu(x @ p["fc1"]) @ p["fc2"]


PARAMETERS = {"fc1": W, "fc2": W.T}
MODEL = jax.tree_util.Partial(forward, PARAMETERS)


def of_package(package, name, **attributes):
    """An object of a class of another package: what matters is where its class says it is from."""
    return type(name, (), {"__module__": package, **attributes})()


def tensor(array=X, package="torch", **attributes):
    own = {"shape": array.shape, "dtype": f"{package}.float32", "numpy": lambda self: array}
    own |= {"__array__": lambda self, *a, **k: array, "__len__": lambda self: len(array)}
    own["__getitem__"] = lambda self, index: tensor(array[index], package)
    return of_package(package, "Tensor", **own, **attributes)


def refused(call, error, words):
    """Wants exactly this error, in one sentence with these words, without the numbers of arrays."""
    with pytest.raises(error, match=words) as caught:
        call()
    message = str(caught.value)
    assert caught.type is error, message
    assert "\n" not in message and len(message) < 500 and message.endswith("."), message


def table(cases):
    return pytest.mark.parametrize(("call", "error", "words"), cases.values(), ids=cases)


def attribute(model=MODEL, x=X, method="lrp-z", **options):
    return lrp.attribute(model, x, method, **options)


def mprt(model=MODEL, x=X, method="gradient", **options):
    return lrp.sanity.mprt(model, x, method, **{"key": KEY, "similarity": "pearson"} | options)


def same_type_only(x):
    return jax.lax.concatenate([x, jnp.ones((4, 2), "float32")], 1) @ jnp.ones((5, 5), "float32")


# --- arrays and models of other packages ---------------------------------------------------------

TORCH = "a torch.Tensor: pass "
INPUTS = {
    "a tensor": (lambda: attribute(x=tensor()), TypeError, f"^x is {TORCH}x.numpy"),
    "of vjp": (lambda: lrp.vjp(MODEL, tensor(), "lrp-z"), TypeError, f"^x is {TORCH}"),
    "to read": (lambda: lrp.read(MODEL, tensor()), TypeError, f"^x is {TORCH}"),
    "with a gradient": (
        lambda: attribute(x=tensor(requires_grad=True)),
        TypeError,
        r"pass x\.numpy\(force=True\)",
    ),
    "on a GPU": (
        lambda: attribute(x=tensor(device=types.SimpleNamespace(type="cuda"))),
        TypeError,
        r"pass x\.numpy\(force=True\)",
    ),
    "inside of a pytree": (
        lambda: attribute(lambda x: x["a"] @ W, {"a": tensor()}),
        TypeError,
        r"x\['a'\] is a torch.Tensor: pass x\['a'\]\.numpy",
    ),
    "a subclass of the user's": (
        lambda: attribute(x=type("Mine", (type(tensor()),), {"__module__": "mine"})()),
        TypeError,
        r"x is a torch\.Mine",
    ),
    "of tensorflow": (
        lambda: attribute(x=tensor(package="tensorflow.python.framework.ops")),
        TypeError,
        r"a tensorflow\.Tensor: pass x\.numpy\(\)",
    ),
    "a variable of Keras elsewhere": (
        lambda: attribute(x=tensor(package="keras.src.backend.torch.core")),
        TypeError,
        r"a keras\.Tensor: pass x\.numpy\(\)",
    ),
    "to a check": (
        lambda: mprt(x=tensor()),
        TypeError,
        r"batch.*torch\.Tensor: pass images\.numpy",
    ),
    "to csc": (
        lambda: lrp.convergence.csc(MODEL, tensor(), "lrp-z", key=KEY),
        TypeError,
        r"pass images\.numpy\(\)",
    ),
    "to an audit": (
        lambda: lrp.audit(MODEL, tensor(), ["lrp-z"], key=KEY),
        TypeError,
        r"pass images\.numpy\(\)",
    ),
    "to patterns": (lambda: lrp.patterns.fit(MODEL, tensor()), TypeError, "torch.Tensor: pass"),
    "as target": (
        lambda: attribute(target=tensor(np.zeros(4, int))),
        TypeError,
        r"^target is a torch.Tensor: pass target\.numpy\(\)",
    ),
    "as target of a check": (
        lambda: mprt(target=tensor(np.zeros(4, int))),
        TypeError,
        "^target is a torch.Tensor",
    ),
    "a map": (
        lambda: attribute(method=lambda model, x, target: tensor()),
        ValueError,
        "gives a torch.Tensor in the place of a map",
    ),
    "a list of numbers": (
        lambda: attribute(x=X.tolist()),
        TypeError,
        r"a list.*pass np.asarray\(x\)",
    ),
    "a ragged list": (lambda: attribute(x=[[1.0], [1.0, 2.0]]), TypeError, "^x is a list"),
    "a list inside": (
        lambda: attribute(lambda x: x["a"] @ W, {"a": X.tolist()}),
        TypeError,
        r"x\['a'\] is a list.*np.asarray",
    ),
    "a list of images": (lambda: attribute(x=list(X)), ValueError, r"pass np\.stack\(x\)"),
    "a list to a check": (lambda: mprt(x=X.tolist()), TypeError, r"pass np.asarray\(images\)"),
    "arrays to a check": (lambda: mprt(x=list(X)), TypeError, r"pass np.stack\(images\)"),
    "nothing": (lambda: attribute(x=None), TypeError, "x is None and holds no array"),
    "an empty list": (lambda: attribute(x=[]), TypeError, "a list.*holds no array"),
    "no images": (lambda: mprt(x=X[:0]), ValueError, r"N at least 1, got shape \(0, 3\)"),
    "a file": (lambda: attribute(x="cat.png"), TypeError, "x is 'cat.png': read it"),
    "a path": (lambda: attribute(x=pathlib.Path("cat.png")), TypeError, "x is 'cat.png': read it"),
    "a picture": (
        lambda: attribute(x=Image.new("RGB", (3, 3))),
        TypeError,
        r"x is a PIL.Image: pass np.asarray\(x\)\[None\]",
    ),
    "a loader": (lambda: attribute(x=(x for x in X)), TypeError, r"x is a generator.*next\(x\)"),
    "an object": (lambda: attribute(x=object()), TypeError, "x is an object, which is no array"),
    "integers": (
        lambda: attribute(x=X.astype(int)),
        NotImplementedError,
        r"integers that dot_general at .*astype\('float32'\)",
    ),
    "half precision": (
        lambda: attribute(same_type_only, X.astype("float16")),
        ValueError,
        r"float32\[4, 3\]: give it that type, as in x\.astype\('float32'\)",
    ),
}


@table(INPUTS)
def test_an_input_that_is_no_array_of_jax_is_named_with_what_to_pass(call, error, words):
    refused(call, error, words)


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(x)


def raising(error):
    def model(x):
        raise error("argument 'input' must be Tensor")

    return model


torch_module = of_package("torch.nn.modules.linear", "Linear", __call__=lambda self, x: x)
MODELS = {
    "a module of torch": (
        lambda: attribute(torch_module),
        TypeError,
        "^The model is a torch.Linear",
    ),
    "its class": (lambda: attribute(type(torch_module)), TypeError, "is the class Linear.*JAX"),
    "a module inside": (
        lambda: attribute(lambda x: raising(TypeError)(torch_module)),
        ValueError,
        r"It holds torch_module, a torch\.Linear",
    ),
    "a parameter": (
        lambda: attribute(jax.tree_util.Partial(forward, {"fc1": tensor(W), "fc2": W.T})),
        ValueError,
        r"\['fc1'\], a torch.Tensor: pass .*numpy\(\)",
    ),
    "parameters alone": (lambda: attribute(PARAMETERS), TypeError, "a dict.*Partial"),
    "a pair": (lambda: attribute((forward, PARAMETERS)), TypeError, "a tuple.*Partial"),
    "an array": (lambda: attribute(X, MODEL), TypeError, r"float32\[4, 3\]: the model comes first"),
    "a name": (lambda: attribute("resnet18"), TypeError, r"lrpjax\.models\.resnet50"),
    "nothing": (lambda: attribute(None), TypeError, "got None"),
    "with parameters": (lambda: attribute(forward), ValueError, "It takes p, x.*Partial"),
    "unbound": (lambda: attribute(Layer()), ValueError, r"Partial\(module\.apply, variables\)"),
    "a class": (lambda: attribute(Layer), ValueError, r"It is a class.*Layer\(\.\.\.\)"),
    "numpy": (lambda: attribute(lambda x: np.asarray(x) @ W), ValueError, "compute with jax.numpy"),
    "a branch": (lambda: attribute(lambda x: x if x.sum() else -x), ValueError, "jnp.where"),
}


@table(MODELS)
def test_a_model_that_is_none_of_jax_is_named_with_what_to_pass(call, error, words):
    with pytest.raises(error, match=words) as caught:
        call()
    assert caught.type is error and "\n" not in str(caught.value)


def test_a_model_of_another_backend_of_keras_says_so(monkeypatch):
    dense = keras.layers.Dense(2)
    monkeypatch.setattr(keras.config, "backend", lambda: "tensorflow")
    with pytest.raises(ValueError, match="KERAS_BACKEND"):
        attribute(lambda x: raising(TypeError)(dense))


def test_a_variable_that_jax_takes_is_taken():
    found = attribute(x=keras.Variable(X))
    np.testing.assert_array_equal(found, attribute())


# --- random keys ---------------------------------------------------------------------------------


def statistics():
    return lrp.bottleneck.statistics(MODEL, X, "fc1")


KEYED = {
    "mprt": lambda key: mprt(key=key),
    "smooth_mprt": lambda key: lrp.sanity.smooth_mprt(
        MODEL, X, "gradient", key=key, similarity="pearson", samples=2
    ),
    "efficient_mprt": lambda key: lrp.sanity.efficient_mprt(MODEL, X, "gradient", key=key),
    "random_logit": lambda key: lrp.sanity.random_logit(
        MODEL, X, "gradient", key=key, similarity="pearson"
    ),
    "conservation": lambda key: lrp.sanity.conservation(MODEL, X, "gradient", key=key),
    "cascade": lambda key: lrp.sanity.cascade(MODEL, X, "gradient", key=key),
    "two_classes": lambda key: lrp.sanity.two_classes(
        MODEL, X, "gradient", key=key, classes=(0, 1)
    ),
    "csc": lambda key: lrp.convergence.csc(MODEL, X, "lrp-z", key=key),
    "singular_values": lambda key: lrp.convergence.singular_values(MODEL, X[:1], "lrp-z", key=key),
    "lyapunov": lambda key: lrp.convergence.lyapunov(MODEL, X[:1], "lrp-z", key=key),
    "certificate": lambda key: lrp.convergence.certificate(MODEL, X[:1], "lrp-zplus", key=key),
    "profile": lambda key: lrp.convergence.profile(MODEL, X[:1], "lrp-zplus", key=key),
    "simulate": lambda key: lrp.convergence.simulate(key=key, repetitions=1, vectors=2),
    "iba": lambda key: lrp.iba(MODEL, X, layer="fc1", statistics=statistics(), key=key, steps=1),
}
NO_KEYS = {0: "got 0: use", None: "got None: use", "key": "got 'key': use", 1.5: "got 1.5: use"}


@pytest.mark.parametrize("call", KEYED.values(), ids=KEYED)
def test_what_is_no_key_is_refused_wherever_one_is_taken(call):
    for given, words in NO_KEYS.items():
        refused(lambda given=given: call(given), TypeError, f"{words} jax.random.key\\(0\\)")
    refused(lambda: call(jax.random.split(KEY)), TypeError, r"array \[2\] of them: take one")


@pytest.mark.parametrize("call", KEYED.values(), ids=KEYED)
def test_a_key_of_the_old_style_gives_what_the_new_one_does(call):
    assert call(jax.random.PRNGKey(0)) == call(KEY)


def test_methods_that_draw_want_a_key_too():
    refused(lambda: lrp.methods.get("smooth-grad", key=0), TypeError, r"jax.random.key\(0\)")
    given = {"layer": "fc1", "statistics": None}
    refused(lambda: lrp.methods.get("iba", key=0, **given), ValueError, "iba needs statistics")
    refused(lambda: lrp.audit(MODEL, X, ["lrp-z"], key=0), TypeError, r"jax.random.key\(0\)")
    for network in (lrp.models.cifar10, lrp.models.vgg11, lrp.models.resnet18):
        refused(lambda make=network: make("random", key=0), TypeError, r"jax.random.key\(0\)")


@pytest.mark.parametrize("methods", ["lrp-z", lrp.methods.z()], ids=["a name", "a method"])
def test_methods_of_an_audit_are_a_list(methods):
    refused(
        lambda: lrp.audit(MODEL, X, methods, key=KEY),
        TypeError,
        r"list of methods, got.*\[method\]",
    )


# --- options -------------------------------------------------------------------------------------

m = lrp.methods
OPTIONS = {
    "unknown": (
        lambda: m.get("rect-grad", percentil=9),
        TypeError,
        "rect-grad.*'percentil'.*percentile, fold",
    ),
    "unknown, of a family": (
        lambda: m.get("lrp-alpha3-beta2", bia="none"),
        TypeError,
        "'bia'.*bias, residual_clip, fold",
    ),
    "given by the name": (lambda: m.get("lrp-alpha2-beta1", alpha=2), TypeError, "'alpha'.*bias"),
    "unknown, of the function": (
        lambda: m.rect_grad(percentil=9),
        TypeError,
        "'percentil'.*percentile",
    ),
    "of no options": (lambda: m.guided_bp(hard=True), TypeError, "no option 'hard'"),
    "of the base": (lambda: m.get("occlusion", fold=False), TypeError, "'fold'.*base="),
    "too many": (lambda: m.rect_grad(1, 2), TypeError, r"cannot take 1, 2.*\(percentile=98\)"),
    "a text for a number": (
        lambda: m.get("rect-grad", percentile="95"),
        TypeError,
        "percentile.*a number, got '95'",
    ),
    "none for a number": (
        lambda: m.get("lrp-epsilon", epsilon=None),
        TypeError,
        "a number, got None",
    ),
    "a truth value for a number": (
        lambda: m.get("lrp-gamma", gamma=True),
        TypeError,
        "a number, got True",
    ),
    "a fraction for a count": (
        lambda: m.get("smooth-grad", samples=2.5, key=KEY),
        TypeError,
        "a whole number, got 2.5",
    ),
    "a text for a window": (lambda: m.get("occlusion", window="2"), TypeError, "a whole number"),
    "fractions for a window": (
        lambda: m.get("occlusion", window=(1.5, 2)),
        TypeError,
        "a whole number",
    ),
    "a text for a bound": (lambda: m.get("deep-taylor", low="a", high=1), TypeError, "low.*number"),
    "a stabiliser": (lambda: m.get("lrp-z", stabiliser="a"), TypeError, "stabiliser.*number"),
    "fold": (lambda: m.get("lrp-z", fold="no"), TypeError, "fold is True or False, got 'no'"),
    "no name": (lambda: m.get(m.z()), TypeError, "name is wanted here, got a Method"),
    "another spelling": (lambda: m.get("LRP_Z"), ValueError, "nearest are lrp-z"),
    "a base": (lambda: m.get("smooth-grad", base="gradien", key=KEY), ValueError, "are gradient,"),
    "draws": (lambda: mprt(draws=1.5), TypeError, "draws is a whole number, got 1.5"),
    "vectors": (
        lambda: lrp.convergence.csc(MODEL, X, "lrp-z", key=KEY, vectors="5"),
        TypeError,
        "vectors is a whole number, got '5'",
    ),
    "layers": (lambda: mprt(layers="fc1"), TypeError, r"use layers=\['fc1'\]"),
    "numbers of layers": (
        lambda: lrp.vjp(MODEL, X, "lrp-z", layers=[1]),
        TypeError,
        "layers is a list of names",
    ),
    "similarity": (lambda: mprt(similarity=None), TypeError, "similarity.*by its name.*None"),
    "randomiser": (
        lambda: mprt(randomiser=lambda a: a),
        TypeError,
        "randomiser.*function <lambda>",
    ),
    "init without a key": (lambda: mprt(init=lambda: MODEL), TypeError, r"init.*random key.*\(\)"),
    "init, a name": (lambda: mprt(init="normal"), TypeError, "init is a function.*'normal'"),
    "init, a model": (lambda: mprt(init=MODEL), ValueError, "init is a function of a random key"),
    "init without a model": (lambda: mprt(init=lambda key: None), TypeError, "init.*got None"),
}


@table(OPTIONS)
def test_a_wrong_option_is_named_with_what_it_is(call, error, words):
    refused(call, error, words)


def test_bounds_are_numbers_lists_or_arrays():
    bounds = (-1.0, 2), ([-1, -1], [2.0, 2.0]), (np.float32(-1), jnp.array([2.0, 2.0]))
    made = [m.get("deep-taylor", low=low, high=high).input_range for low, high in bounds]
    assert made == [(-1, 2), ((-1, -1), (2, 2)), (-1, (2, 2))]


# --- rules, composites, and what explains --------------------------------------------------------


def own(composite):
    return attribute(method=m.Method("mine", composite))


def at_dense(rule):
    return own(composites.or_else(lambda a: rule if a.kind == "dense" else None, m.z().composite))


def two_arguments(op, output):
    return lambda r: r


def two(model, x):
    return x


RULES = {
    "a function for a rule": (
        lambda: at_dense(rules.flat),
        TypeError,
        r"'fc1' the function flat.*rule\(flat\)",
    ),
    "in a table": (
        lambda: composites.by_kind(dense=rules.flat),
        TypeError,
        r"'dense'.*rule\(flat\)",
    ),
    "on the first layer": (lambda: composites.first_layer(rules.flat), TypeError, r"rule\(flat\)"),
    "of negated weights": (
        lambda: own(composites.negate_last(lambda layer: rules.flat)),
        TypeError,
        r"rule\(flat\)",
    ),
    "a text": (lambda: at_dense("flat"), TypeError, "'fc1' 'flat' in the place of a rule or None"),
    "a kind misspelt": (lambda: composites.by_kind(dens=None), ValueError, "'dens'.*dense"),
    "a kind misspelt, of all": (
        lambda: composites.for_every_kind(dens=None),
        ValueError,
        "'dens'.*dense",
    ),
    "a composite of nothing": (
        lambda: own(lambda: None),
        TypeError,
        r"composite of mine.*with \(\)",
    ),
    "a rule as composite": (
        lambda: own(rules.rule(rules.z)),
        TypeError,
        "a Rule.*lambda layer: rule",
    ),
    "a name as composite": (lambda: own("lrp-z"), TypeError, r"get\('lrp-z'\)\.composite"),
    "a method as composite": (
        lambda: composites.or_else(m.z(), m.flat().composite),
        TypeError,
        r"a Method: pass its \.composite",
    ),
    "no composite": (lambda: own(None), TypeError, "got None"),
    "a parameter too many": (
        lambda: rules.rule(rules.flat, gamma=1),
        TypeError,
        "flat.*no parameter 'gamma'",
    ),
    "a parameter too few": (
        lambda: rules.rule(rules.epsilon),
        TypeError,
        r"needs epsilon, as in rule\(epsilon, epsilon",
    ),
    "two arguments": (
        lambda: rules.rule(two_arguments),
        TypeError,
        r"\(op, output\) is no rule.*\*inputs",
    ),
    "a rule of a rule": (lambda: rules.rule(rules.rule(rules.z)), TypeError, "a rule already"),
    "a rule of a name": (lambda: rules.rule("flat"), TypeError, "got 'flat'"),
    "registered": (lambda: rules.register("sin", two_arguments), TypeError, "is no rule"),
    "a rule for another layer": (
        lambda: at_dense(rules.rule(lambda op, x, y, z: lambda r: r)),
        TypeError,
        r"'fc1' .*1 of its inputs.*\(op, x, y, z\)",
    ),
    "a rule of nothing": (
        lambda: at_dense(rules.rule(lambda op, x, z: None)),
        TypeError,
        "'fc1'.*returns None.*a function",
    ),
    "a rule of an array": (
        lambda: at_dense(rules.rule(lambda op, x, z: x)),
        TypeError,
        r"returns an array float32\[4, 3\]",
    ),
    "a map of nothing": (
        lambda: at_dense(rules.rule(lambda op, x, z: lambda: x)),
        TypeError,
        r"with \(\).*from the relevance",
    ),
    "explains with two": (
        lambda: attribute(method=two),
        TypeError,
        r"\(model, x, target\).*two with \(model, x\)",
    ),
    "explains with two, in a check": (lambda: mprt(method=two), TypeError, "two with"),
    "an object explains with one": (
        lambda: attribute(method=types.SimpleNamespace(name="one", explain=lambda x: x)),
        TypeError,
        r"\(reading, x, target\).*with \(x\)",
    ),
    "what makes a method": (
        lambda: attribute(method=m.rect_grad),
        TypeError,
        r"call it, rect_grad\(\)",
    ),
    "a rule as method": (lambda: attribute(method=rules.rule(rules.z)), TypeError, "got a Rule"),
    "a list of methods": (lambda: attribute(method=["lrp-z"]), TypeError, "got a list"),
    "the input as method": (
        lambda: lrp.attribute(MODEL, "lrp-z", X),
        TypeError,
        r"float32\[4, 3\]",
    ),
    "a map of lists": (
        lambda: attribute(method=lambda model, x, target: x.tolist()),
        ValueError,
        "a list.*in the place of a map",
    ),
}


@table(RULES)
def test_what_cannot_propagate_is_named_with_what_it_should_be(call, error, words):
    refused(call, error, words)


def test_functions_that_take_anything_are_taken():
    """Also with more parameters that have a default, and bound to an object."""
    of_all = rules.rule(lambda op, *values, scale=1, **rest: lambda r, more=0: scale * r @ op.w.T)
    of_z = m.Method("z", lambda layer, more=None: of_all if layer.kind == "dense" else None)
    assert lrp.attribute(lambda x: x @ W, X, of_z).shape == X.shape
    explain = types.SimpleNamespace(name="all", explain=lambda *given: given[1])
    np.testing.assert_array_equal(attribute(method=explain), X)


# --- parameters without a name, targets ----------------------------------------------------------


class OfGlobals:
    def __call__(self, x):
        return jax.nn.relu(x @ W) @ W.T


@pytest.mark.parametrize("model", [OfGlobals(), OfGlobals().__call__, lambda x: x @ W @ W.T])
def test_parameters_that_are_globals_are_said_to_be_so(model):
    words = "30 numbers .* globals.*Partial"
    refused(lambda: mprt(model), ValueError, words)
    refused(lambda: lrp.sanity.cascade(model, X, "gradient", key=KEY), ValueError, words)


def test_a_model_without_parameters_is_said_to_have_none():
    refused(lambda: mprt(lambda x: jax.nn.relu(x)), ValueError, "computes with none")


ONE_HOT = np.eye(3)[[0, 1, 2, 0]]
TARGETS = {
    "out of range": (7, "between 0 and 2, got 7"),
    "one out of range": ([0, 1, -2, 0], "between 0 and 2, got -2"),
    "one hot": (ONE_HOT, r"take target\.argmax\(-1\)"),
    "a mask": (ONE_HOT > 0, r"bool.*take target\.argmax\(-1\)"),
    "a mask of images": (np.ones(4, bool), "got dtype bool"),
    "ragged": ([[1], [2, 3]], "differ in length"),
    "a float": (1.0, "integer.*float"),
}


@pytest.mark.parametrize(("target", "words"), TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("call", [attribute, mprt])
def test_a_target_is_refused_for_what_is_wrong_with_it(call, target, words):
    with pytest.raises(ValueError, match=words) as caught:
        call(target=target)
    assert re.search("target|inhomogeneous", str(caught.value))
    assert "images[None]" not in str(caught.value)


def test_one_image_without_a_batch_is_still_told_to_be_one():
    with pytest.raises(ValueError, match=r"give images\[None\]"):
        lrp.sanity.mprt(
            lambda x: x.reshape(len(x), -1) @ np.ones((12, 3)), np.ones((3, 4)), "lrp-z", key=KEY
        )
