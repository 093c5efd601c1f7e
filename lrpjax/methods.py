"""The table of named methods: formula, source and what is known of each; and how to get one."""

from __future__ import annotations

import re
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import jax

from ._text import columns
from .baselines import baseline_of
from .bottleneck import InformationBottleneck, Statistics
from .composites import stabilised, uniform
from .entries import NOTATION, STABILISERS, TABLE, named
from .estimators import Contrastive, Estimator, IntegratedGradients, Occlusion, SmoothGrad
from .method import Method as Method
from .named import alpha_beta as alpha_beta
from .named import cmp_alpha_beta as cmp_alpha_beta
from .named import deconv as deconv
from .named import deep_taylor as deep_taylor
from .named import epsilon as epsilon
from .named import epsilon_gamma_box as epsilon_gamma_box
from .named import epsilon_plus_flat as epsilon_plus_flat
from .named import excitation_bp as excitation_bp
from .named import flat as flat
from .named import gamma as gamma
from .named import gradient as gradient
from .named import guided_bp as guided_bp
from .named import input_x_gradient as input_x_gradient
from .named import rect_grad as rect_grad
from .named import wsquare as wsquare
from .named import z as z
from .named import zplus as zplus
from .named_deeplift import deeplift_ablation as deeplift_ablation
from .named_deeplift import deeplift_rescale as deeplift_rescale
from .named_deeplift import deeplift_reveal_cancel as deeplift_reveal_cancel
from .named_patterns import pattern_attribution as pattern_attribution
from .named_patterns import pattern_net as pattern_net
from .reading import model_of


@named(
    "contrastive-lrp", "max(0, n(R_t) - n(R_dual)), n(R) = R / sum R", "Gu et al. 2018",
    "no", "its parts as their base", chain=False,
)  # fmt: skip
def contrastive_lrp(
    base: str | Method | Estimator = "lrp-alpha1-beta0", *, dual: str = "classes"
) -> Estimator:
    """base: the method whose maps are compared.

    dual: "classes" (all others; Gu et al.'s CLRP1) or "weights" (negated; CLRP2).
    """
    return Contrastive(base=_value(base), dual=dual)


@named(
    "contrastive-excitation-bp", "R_t - R_dual, the dual with the last weights negated",
    "Zhang et al. 2018", "no", "its parts as their base", chain=False,
)  # fmt: skip
def contrastive_excitation_bp(
    base: str | Method | Estimator = "excitation-bp", *, dual: str = "weights"
) -> Estimator:
    """base, dual: as in `contrastive_lrp`."""
    return Contrastive(
        name="contrastive-excitation-bp", base=_value(base), dual=dual, normalised=False
    )


@named(
    "integrated-gradients", "(x - x0) * integral of J^T 1_t from x0 to x",
    "Sundararajan et al. 2017", "sum is f(x) - f(x0)", "no", chain=False,
)  # fmt: skip
def integrated_gradients(
    base: str | Method | Estimator = "gradient",
    *,
    steps: int = IntegratedGradients.steps,
    quadrature: str = IntegratedGradients.quadrature,
    baseline: Any = 0.0,
    baselines: Any = None,
    chunk: int | None = None,
) -> Estimator:
    """base: the method that is averaged along the way from x0 to x.

    steps, quadrature: the points of the way and their weights; quadrature is "gauss-legendre",
    "left", "right", "middle" or "trapezoid". baseline: x0, a number, one input, or one
    for each image (N, ...). baselines: a set (K, ...) to average over. chunk: points that
    run at once.
    """
    return IntegratedGradients(
        base=_value(base),
        steps=steps,
        quadrature=quadrature,
        baseline=baseline_of(baseline, baselines),
        chunk=chunk,
    )


@named(
    "smooth-grad", "mean of J^T 1_t at x + N(0, sigma^2)", "Smilkov et al. 2017", "no", "no",
    needs="key", chain=False,
)  # fmt: skip
def smooth_grad(
    base: str | Method | Estimator = "gradient",
    *,
    key: jax.Array | None = None,
    samples: int = SmoothGrad.samples,
    noise: float = SmoothGrad.noise,
    form: str = SmoothGrad.form,
    chunk: int | None = None,
) -> Estimator:
    """base: the method whose maps are averaged. key: of the noise, which it needs.

    samples: how many noisy copies. noise: sigma over the range, max - min, of the image. form: what
    is averaged: the maps ("mean"), their squares ("square"), or what the squares have over the
    squared mean ("variance"). chunk: copies that run at once.
    """
    if key is None:
        raise ValueError(
            "smooth-grad draws noise and needs a key: use "
            "lrpjax.methods.get('smooth-grad', key=jax.random.key(0))."
        )
    return SmoothGrad(
        base=_value(base), key=key, samples=samples, noise=noise, form=form, chunk=chunk
    )


@named(
    "iba", "bits of a layer that are kept when noise replaces what the class does not need",
    "Schulz et al. 2020", "no", "no", needs="layer", chain=False,
)  # fmt: skip
def iba(
    *,
    layer: str | None = None,
    statistics: Statistics | None = None,
    key: jax.Array | None = None,
    beta: float = InformationBottleneck.beta,
    steps: int = InformationBottleneck.steps,
    samples: int = InformationBottleneck.samples,
    learning_rate: float = InformationBottleneck.learning_rate,
    sigma: float = InformationBottleneck.sigma,
    chunk: int | None = None,
) -> InformationBottleneck:
    """layer, statistics and key are needed: the layer that loses information, from
    `bottleneck.statistics` what it holds on average, and the key of the noise.

    beta: the cost of a nat in nats of cross-entropy. steps, learning_rate: of the optimiser.
    samples: draws of the noise for each step. sigma: of the Gaussian that smooths over space, in
    units of the layer. chunk: images fitted at once. `lrpjax.iba` also gives the bits of each unit.
    """
    if layer is None or statistics is None or key is None:
        needed = {"layer": layer, "statistics": statistics, "key": key}
        missing = [name for name, value in needed.items() if value is None]
        raise ValueError(
            f"iba needs {', '.join(missing)}: use lrpjax.methods.get('iba', layer=..., "
            "statistics=lrpjax.bottleneck.statistics(model, images, layer), key=jax.random.key(0))."
        )
    return InformationBottleneck(
        layer, statistics, key, beta, steps, samples, learning_rate, sigma, chunk
    )


@named(
    "occlusion", "f(x) - f(x with a window covered)", "Zeiler and Fergus 2014", "no", "no",
    chain=False,
)  # fmt: skip
def occlusion(
    window: int | tuple[int, ...] | None = None,
    stride: int | tuple[int, ...] | None = None,
    *,
    baseline: Any = 0.0,
    baselines: Any = None,
    chunk: int | None = None,
) -> Estimator:
    """window, stride: in pixels, a number or one for each spatial axis (default: an eighth of the
    image's side, and half a window). baseline: what covers: a number, an input, or one for
    each image; baselines: a set to average over. chunk: windows
    that run at once.
    """
    x0 = baseline_of(baseline, baselines)
    return Occlusion(window=window, stride=stride, baseline=x0, chunk=chunk)


def _value(method: str | Method | Estimator) -> Method | Estimator:
    if not isinstance(method, str | Method | Estimator):
        raise TypeError(f"The base is a method's name or value, got {method!r}.")
    return get(method) if isinstance(method, str) else method


_COMMON = (
    "fold",
    "unknown",
    "start",
    "attention",
    "stabiliser",
)  # what `get` takes for every chain of rules
Explainer = Method | Estimator | InformationBottleneck  # what `lrpjax.attribute` takes


def get(name: str, **options: Any) -> Any:
    """The method of that name. Any lrp-alphaA-betaB is one, with A - B = 1.

    options: `fold`, `unknown` and `start` as on `Method`; `attention`, how LRP treats products of
    two values: "detached" (the default; CP-LRP: attention and gates are constants, and relevance
    is conserved) or "uniform" (AttnLRP: half to each); `stabiliser`, an absolute number that LRP
    adds to its denominators (default: 1e-9 of the layer's largest for one example); all others go
    to the method's own function (`get("rect-grad", percentile=95)`).
    Raises ValueError for an unknown name, with the nearest ones, or a missing option.
    """
    common = {key: options.pop(key) for key in _COMMON if key in options}
    if match := re.fullmatch(r"lrp-alpha(\d+(?:\.\d+)?)-beta(\d+(?:\.\d+)?)", name):
        made = alpha_beta(float(match[1]), float(match[2]), **options)
    elif name == "tcav":
        raise ValueError(
            "tcav gives a score for each concept, not a map: call lrpjax.tcav(model, images, ...)."
        )
    elif name not in TABLE:
        near = get_close_matches(name, TABLE, 3, 0.4) or list(TABLE)
        raise ValueError(f"There is no method {name!r}; the nearest are {', '.join(near)}.")
    else:
        made = TABLE[name].make(**options)
    if common and not isinstance(made, Method):
        raise ValueError(
            f"{name} has no option {next(iter(common))!r}: give it to the base method, as in "
            f"base=lrpjax.methods.get(..., {next(iter(common))}=...)."
        )
    attention = common.pop("attention", "detached")
    stabiliser = common.pop("stabiliser", None)
    made = _with_attention(replace(made, **common), attention)
    if stabiliser is None:
        return made
    if not stabiliser > 0:
        raise ValueError(f"stabiliser must be greater than 0, got {stabiliser}.")
    return replace(made, composite=stabilised(made.composite, stabiliser))


def _with_attention(method: Any, attention: str) -> Any:
    if attention not in ("detached", "uniform"):
        raise ValueError(f'attention is "detached" or "uniform", got {attention!r}.')
    if attention == "detached":
        return method
    name = f"{method.name} (uniform attention)"
    return replace(method, name=name, composite=uniform(method.composite))


def resolve(method: str | Explainer, model: Any) -> Explainer:
    """The method as a value. What a method needs of a model, its `input_range` or its `patterns`,
    is taken from there."""
    if isinstance(method, Explainer):
        return method
    if not isinstance(method, str):
        raise TypeError(f"A method is a name or an lrpjax.methods.Method, got {method!r}.")
    needs = TABLE[method].needs if method in TABLE else ""
    given = getattr(model_of(model), needs, None) if needs in ("input_range", "patterns") else None
    if given is None:
        return get(method)
    if needs == "patterns":
        return get(method, patterns=given)
    return get(method, low=given[0], high=given[1])


def resolve_chain(method: str | Explainer, model: Any) -> Method:
    """As `resolve`; ValueError for a method that is no chain of rules."""
    found = resolve(method, model)
    if not isinstance(found, Method):
        raise ValueError(
            f"{found.name} is not a chain of rules: it explains a target with lrpjax.attribute."
        )
    return found


def table() -> str:
    """Every named method with its formula and its source, as text."""
    rows = [{"method": n, "formula": e.formula, "source": e.source} for n, e in TABLE.items()]
    return f"{columns(rows)}\n\n{NOTATION}\n\n{STABILISERS}"


# The functions of the table, each once.
_MAKERS = [entry.make for entry in TABLE.values()]
__all__ = sorted({"Method", "get", "table"} | {getattr(f, "func", f).__name__ for f in _MAKERS})


def __dir__() -> list[str]:
    return __all__
