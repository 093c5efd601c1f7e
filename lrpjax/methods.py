"""The table of named methods: formula, source and what is known of each; and how to get one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import Any, Literal

from ._text import columns
from .baselines import baseline_of
from .bottleneck import InformationBottleneck
from .composites import uniform
from .estimators import Contrastive, Estimator, IntegratedGradients, Occlusion, SmoothGrad
from .method import Method as Method
from .named import alpha_beta as alpha_beta
from .named import cmp_alpha_beta as cmp_alpha_beta
from .named import deconv as deconv
from .named import deep_taylor as deep_taylor
from .named import deeplift_ablation as deeplift_ablation
from .named import deeplift_rescale as deeplift_rescale
from .named import deeplift_reveal_cancel as deeplift_reveal_cancel
from .named import epsilon as epsilon
from .named import epsilon_gamma_box as epsilon_gamma_box
from .named import epsilon_plus_flat as epsilon_plus_flat
from .named import excitation_bp as excitation_bp
from .named import flat as flat
from .named import gamma as gamma
from .named import gradient as gradient
from .named import guided_bp as guided_bp
from .named import input_x_gradient as input_x_gradient
from .named import pattern_attribution as pattern_attribution
from .named import pattern_net as pattern_net
from .named import rect_grad as rect_grad
from .named import wsquare as wsquare
from .named import z as z
from .named import zplus as zplus


def integrated_gradients(base: str | Method | Estimator = "gradient", **options: Any) -> Estimator:
    """options: steps, quadrature, baseline(s), chunk: see `estimators.IntegratedGradients`."""
    x0 = baseline_of(options.pop("baseline", 0.0), options.pop("baselines", None))
    return IntegratedGradients(base=_value(base), baseline=x0, **options)


def smooth_grad(base: str | Method | Estimator = "gradient", **options: Any) -> Estimator:
    """options: key (needed), samples, noise, form, chunk: see `estimators.SmoothGrad`."""
    if options.get("key") is None:
        raise ValueError(
            "smooth-grad draws noise and needs a key: use "
            "lrpjax.methods.get('smooth-grad', key=jax.random.key(0))."
        )
    return SmoothGrad(base=_value(base), **options)


def occlusion(
    window: int | tuple[int, ...] | None = None,
    stride: int | tuple[int, ...] | None = None,
    *,
    baseline: Any = 0.0,
    baselines: Any = None,
    chunk: int | None = None,
) -> Estimator:
    """See `estimators.Occlusion`."""
    x0 = baseline_of(baseline, baselines)
    return Occlusion(window=window, stride=stride, baseline=x0, chunk=chunk)


def iba(**options: Any) -> InformationBottleneck:
    """options: layer, statistics and key (needed), beta, steps, samples, learning_rate, sigma,
    chunk: see `bottleneck.iba`, which also gives the bits of each unit."""
    missing = [name for name in ("layer", "statistics", "key") if options.get(name) is None]
    if missing:
        raise ValueError(
            f"iba needs {', '.join(missing)}: use lrpjax.methods.get('iba', layer=..., "
            "statistics=lrpjax.bottleneck.statistics(model, images, layer), key=jax.random.key(0))."
        )
    return InformationBottleneck(**options)


def contrastive_lrp(
    base: str | Method | Estimator = "lrp-alpha1-beta0", *, dual: str = "classes"
) -> Estimator:
    """dual: "classes" (all others; Gu et al.'s CLRP1) or "weights" (negated; CLRP2)."""
    return Contrastive(base=_value(base), dual=dual)


def contrastive_excitation_bp(
    base: str | Method | Estimator = "excitation-bp", *, dual: str = "weights"
) -> Estimator:
    return Contrastive(
        name="contrastive-excitation-bp", base=_value(base), dual=dual, normalised=False
    )


def _value(method: str | Method | Estimator) -> Method | Estimator:
    if not isinstance(method, str | Method | Estimator):
        raise TypeError(f"The base is a method's name or value, got {method!r}.")
    return get(method) if isinstance(method, str) else method


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    make: the method's function. needs: what it takes from the model where the model has it.
    chain: whether it is a chain of rules. conserves, converges: whether relevance is conserved, and
    whether its chain of matrices is expected to collapse to rank 1, in words.
    """

    make: Callable[..., Any]
    formula: str
    source: str
    conserves: str
    converges: str
    needs: Literal["", "input_range", "patterns", "key", "layer"] = ""
    chain: bool = True


_AB = "R_j = sum_i (alpha c+_ij / sum_k c+_ik - beta c-_ij / sum_k c-_ik) R_i"
_YES = "yes: non-negative (Theorem 1)"
_SEEN = "no proof; observed"
_NOT_LINEAR = "not linear; ignores later layers otherwise"
_BIAS = "up to bias"
_UNSHARED = "but in pools of zeros"
_PLAIN = "yes without residuals: non-negative (Theorem 1)"
_BOTH = "where both signs contribute"
TABLE: dict[str, Entry] = {
    "gradient": Entry(gradient, "J^T 1_t", "Simonyan et al. 2014", "no", "no"),
    "input-x-gradient": Entry(
        input_x_gradient, "x * J^T 1_t", "Shrikumar et al. 2016", "up to bias (ReLU nets)", "no"
    ),
    "lrp-z": Entry(z, "R_j = sum_i c_ij / z_i R_i", "Bach et al. 2015", _BIAS, "no"),
    "lrp-epsilon": Entry(
        epsilon, "R_j = sum_i c_ij / (z_i + epsilon sign z_i) R_i", "Bach et al. 2015",
        "up to bias, epsilon", "no",
    ),
    "lrp-gamma": Entry(
        gamma, "R_j = sum_i (c_ij + gamma c^s_ij) / sum_k (c_ik + gamma c^s_ik) R_i, s = sign z_i",
        "Montavon et al. 2019", _BIAS, "as gamma grows, like z+",
    ),
    "lrp-zplus": Entry(
        zplus, "R_j = sum_i c+_ij / sum_k c+_ik R_i", "Montavon et al. 2017", "yes", _YES
    ),
    "lrp-alpha1-beta0": Entry(partial(alpha_beta, 1, 0), _AB, "Bach et al. 2015", "yes", _YES),
    "lrp-alpha2-beta1": Entry(
        partial(alpha_beta, 2, 1), _AB, "Bach et al. 2015", _BOTH, _SEEN
    ),
    "lrp-alpha5-beta4": Entry(
        partial(alpha_beta, 5, 4), _AB, "Sixt et al. 2020", _BOTH, _SEEN
    ),
    "lrp-flat": Entry(
        flat, "R_j = sum_i 1_ij / sum_k 1_ik R_i", "Lapuschkin et al. 2017", _UNSHARED, _PLAIN
    ),
    "lrp-wsquare": Entry(
        wsquare, "R_j = sum_i W_ij^2 / sum_k W_ik^2 R_i", "Montavon et al. 2017", _UNSHARED, _PLAIN
    ),
    "lrp-cmp-alpha1-beta0": Entry(
        partial(cmp_alpha_beta, 1, 0), "epsilon on dense, alpha1-beta0 on the rest",
        "Kohlbrenner et al. 2020", "up to bias of dense", "not in the dense part",
    ),
    "lrp-cmp-alpha2-beta1": Entry(
        partial(cmp_alpha_beta, 2, 1), "epsilon on dense, alpha2-beta1 on the rest",
        "Kohlbrenner et al. 2020", "up to bias of dense", "not in the dense part",
    ),
    "epsilon-plus-flat": Entry(
        epsilon_plus_flat, "epsilon on dense, z+ on the rest, flat on the first layer",
        "Kohlbrenner et al. 2020; Anders et al. 2021", "up to bias of dense",
        "not in the dense part",
    ),
    "epsilon-gamma-box": Entry(
        epsilon_gamma_box, "epsilon on dense, gamma on the rest, z-box on the first layer",
        "Montavon et al. 2019; Anders et al. 2021", _BIAS, "no", needs="input_range",
    ),
    "deep-taylor": Entry(
        deep_taylor, "z+, and z-box (or w-square) on the first layer", "Montavon et al. 2017",
        "yes", _YES, needs="input_range",
    ),
    "excitation-bp": Entry(excitation_bp, "z+ started from 1", "Zhang et al. 2018", "yes", _YES),
    "guided-bp": Entry(
        guided_bp, "J^T with 1[x > 0] max(R, 0) at each ReLU", "Springenberg et al. 2015",
        "no", _NOT_LINEAR,
    ),
    "deconv": Entry(
        deconv, "J^T with max(R, 0) at each ReLU", "Zeiler and Fergus 2014", "no", _NOT_LINEAR
    ),
    "rect-grad": Entry(
        rect_grad, "J^T with 1[x > 0] 1[y R > tau] R at each ReLU, tau the 98th percentile",
        "Kim et al. 2019", "no", _NOT_LINEAR,
    ),
    "pattern-net": Entry(
        pattern_net, "J^T with patterns A for the weights W", "Kindermans et al. 2018",
        "no", _SEEN, needs="patterns",
    ),
    "pattern-attribution": Entry(
        pattern_attribution, "J^T with A * W for the weights W", "Kindermans et al. 2018",
        "no", _SEEN, needs="patterns",
    ),
    "deeplift-rescale": Entry(
        deeplift_rescale, "D * W^T m; m_x = m_y D_y / D_x at activations",
        "Shrikumar et al. 2017", "sum is f(x) - f(x0)", "no",
    ),
    "deeplift-reveal-cancel": Entry(
        deeplift_reveal_cancel, "D+ * m+ + D- * m-; m+_x = m+_y D+_y / D+_x at activations",
        "Shrikumar et al. 2017", "sum is f(x) - f(x0)", "no",
    ),
    "deeplift-ablation": Entry(
        deeplift_ablation, "rescale without W-: m_x = W+^T m+ where D > 0, W+^T m- where D < 0",
        "Sixt et al. 2020", "no", "yes: the chains no longer mix",
    ),
    "contrastive-lrp": Entry(
        contrastive_lrp, "max(0, n(R_t) - n(R_dual)), n(R) = R / sum R", "Gu et al. 2018",
        "no", "its parts as their base", chain=False,
    ),
    "contrastive-excitation-bp": Entry(
        contrastive_excitation_bp, "R_t - R_dual, the dual with the last weights negated",
        "Zhang et al. 2018", "no", "its parts as their base", chain=False,
    ),
    "integrated-gradients": Entry(
        integrated_gradients, "(x - x0) * integral of J^T 1_t from x0 to x",
        "Sundararajan et al. 2017", "sum is f(x) - f(x0)", "no", chain=False,
    ),
    "smooth-grad": Entry(
        smooth_grad, "mean of J^T 1_t at x + N(0, sigma^2)", "Smilkov et al. 2017", "no", "no",
        needs="key", chain=False,
    ),
    "iba": Entry(
        iba, "bits of a layer that are kept when noise replaces what the class does not need",
        "Schulz et al. 2020", "no", "no", needs="layer", chain=False,
    ),
    "occlusion": Entry(
        occlusion, "f(x) - f(x with a window covered)", "Zeiler and Fergus 2014", "no", "no",
        chain=False,
    ),
}  # fmt: skip


_COMMON = ("fold", "unknown", "start", "attention")  # what `get` takes for every chain of rules
Explainer = Method | Estimator | InformationBottleneck  # what `lrpjax.attribute` takes


def get(name: str, **options: Any) -> Any:
    """The method of that name. Any lrp-alphaA-betaB is one, with A - B = 1.

    options: `fold`, `unknown` and `start` as on `Method`; `attention`, how LRP treats products of
    two values: "detached" (the default; CP-LRP: attention and gates are constants, and relevance
    is conserved) or "uniform" (AttnLRP: half to each); all others go to the method's own function
    (`get("rect-grad", percentile=95)`).
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
    return _with_attention(replace(made, **common), attention)


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
    given = getattr(model, needs, None) if needs in ("input_range", "patterns") else None
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
    """Every named method with its formula and its source, as text.

    c_ij = W_ij x_j is what input j contributes to output i; + and - are its signed parts.
    """
    rows = [{"method": n, "formula": e.formula, "source": e.source} for n, e in TABLE.items()]
    return columns(rows)
