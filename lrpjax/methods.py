"""The named methods: which rule where, what to start from and what to read out. One table."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from . import checks
from . import rules as r
from ._text import columns
from .bottleneck import InformationBottleneck
from .composites import by_kind, first_layer, or_else
from .estimators import Contrastive, Estimator, IntegratedGradients, Occlusion, SmoothGrad
from .method import Method as Method
from .method import Start
from .patterns import Patterns
from .rules import Rule, rule
from .rules import deeplift as d

EPSILON = 1e-6
GAMMA = 0.25
CMP_EPSILON = 1e-10  # of the paper's composites
Bias = Literal["none", "signed", "split"]
Bound = float | tuple[float, ...]  # of the input: one number, or one for each channel


def _lrp(name: str, linear: Rule, add: Rule, *, first: Rule | None = None, **kinds: Rule) -> Method:
    below = by_kind(
        linear=linear,
        add=add,
        sum=rule(r.input_times_gradient),
        max_pool=rule(r.winner_takes_all),
        activation=rule(r.pass_),
        structure=rule(r.gradient),
        **kinds,
    )
    return Method(name, or_else(first_layer(first), below) if first else below)


def _backprop(name: str, start: Start, *, times_input=False, **kinds: Rule) -> Method:
    names = ("linear", "sum", "activation", "structure", "unknown")
    everything = {kind: rule(r.gradient) for kind in names}
    special = {"add": rule(r.add_copy), "max_pool": rule(r.winner_takes_all)}
    return Method(name, by_kind(**(everything | special | kinds)), start, times_input)


_SIGNED = rule(r.add_signed)


def _share(alpha: float, beta: float) -> Rule:
    return rule(r.add_alpha_beta, alpha=alpha, beta=beta)


def z() -> Method:
    return _lrp("lrp-z", rule(r.z), _SIGNED)


def epsilon(epsilon: float = EPSILON) -> Method:
    return _lrp("lrp-epsilon", rule(r.epsilon, epsilon=_positive("epsilon", epsilon)), _SIGNED)


def gamma(gamma: float = GAMMA) -> Method:
    return _lrp("lrp-gamma", rule(r.gamma, gamma=_positive("gamma", gamma)), _SIGNED)


def zplus() -> Method:
    return _lrp("lrp-zplus", rule(r.zplus), _share(1, 0))


def alpha_beta(alpha: float, beta: float, *, bias: Bias = "none") -> Method:
    """bias: "none" (the paper's theory), "signed" (what the paper ran), or "split"."""
    name = f"lrp-alpha{alpha:g}-beta{beta:g}{_bias_suffix(bias)}"
    return _lrp(name, _alpha_beta_rule(alpha, beta, bias), _share(alpha, beta))


def _alpha_beta_rule(alpha: float, beta: float, bias: Bias) -> Rule:
    if alpha < 1 or abs(alpha - beta - 1) > 1e-9:
        raise ValueError(
            f"alpha-beta LRP needs alpha >= 1 and alpha - beta = 1, got alpha={alpha:g} and "
            f"beta={beta:g}."
        )
    if bias not in ("none", "signed", "split"):
        raise ValueError(f'The bias mode is "none", "signed" or "split", got {bias!r}.')
    return rule(r.alpha_beta, alpha=alpha, beta=beta, bias=bias)


def _bias_suffix(bias: Bias) -> str:
    return "" if bias == "none" else f" (bias {bias})"


def flat() -> Method:
    return _lrp("lrp-flat", rule(r.flat), _SIGNED)


def wsquare() -> Method:
    return _lrp("lrp-wsquare", rule(r.wsquare), _SIGNED)


def cmp_alpha_beta(alpha: float, beta: float, *, bias: Bias = "none") -> Method:
    """The paper's composite: epsilon on dense layers, alpha-beta below (it ran bias "signed")."""
    below = _alpha_beta_rule(alpha, beta, bias)
    dense = rule(r.epsilon, epsilon=CMP_EPSILON)
    name = f"lrp-cmp-alpha{alpha:g}-beta{beta:g}{_bias_suffix(bias)}"
    return _lrp(name, below, _share(alpha, beta), dense=dense)


def epsilon_plus_flat(epsilon: float = EPSILON) -> Method:
    return _lrp(
        "epsilon-plus-flat",
        rule(r.zplus),
        _share(1, 0),
        dense=rule(r.epsilon, epsilon=_positive("epsilon", epsilon)),
        first=rule(r.flat),
    )


def epsilon_gamma_box(
    low: Bound | None = None,
    high: Bound | None = None,
    *,
    epsilon: float = EPSILON,
    gamma: float = GAMMA,
) -> Method:
    """low, high: the smallest and the largest value an input can take."""
    low, high = _range("epsilon-gamma-box", low, high)
    made = _lrp(
        "epsilon-gamma-box",
        rule(r.gamma, gamma=_positive("gamma", gamma)),
        _SIGNED,
        dense=rule(r.epsilon, epsilon=_positive("epsilon", epsilon)),
        first=rule(r.zbox, low=low, high=high),
    )
    return replace(made, input_range=(low, high))


def deep_taylor(
    low: Bound | None = None,
    high: Bound | None = None,
    *,
    first: Literal["zbox", "wsquare"] = "zbox",
) -> Method:
    """z+ above the first layer. low, high: the range of the input, which "zbox" needs there;
    "wsquare" is for an input without bounds."""
    if first == "wsquare":
        return _lrp("deep-taylor (w-square)", rule(r.zplus), _share(1, 0), first=rule(r.wsquare))
    if first != "zbox":
        raise ValueError(f'The rule of the first layer is "zbox" or "wsquare", got {first!r}.')
    low, high = _range("deep-taylor", low, high)
    made = _lrp("deep-taylor", rule(r.zplus), _share(1, 0), first=rule(r.zbox, low=low, high=high))
    return replace(made, input_range=(low, high))


def _range(name: str, low: Bound | None, high: Bound | None) -> tuple[Bound, Bound]:
    if low is None or high is None:
        raise ValueError(
            f"{name} needs the range of the input: use "
            f"lrpjax.methods.get({name!r}, low=..., high=...)."
        )
    l, u = np.asarray(low, float), np.asarray(high, float)
    fits = max(l.ndim, u.ndim) < 2 and (l.shape == u.shape or 0 in (l.ndim, u.ndim))
    if not fits or not np.all(l < u):
        raise ValueError(
            f"{name} needs low < high, each a number or one for each channel, got low={low} and "
            f"high={high}."
        )
    return tuple(l.tolist()) if l.ndim else l.item(), tuple(u.tolist()) if u.ndim else u.item()


def excitation_bp() -> Method:
    return replace(zplus(), name="excitation-bp", start="one")


def gradient() -> Method:
    return _backprop("gradient", "one")


def input_x_gradient() -> Method:
    return _backprop("input-x-gradient", "one", times_input=True)


def guided_bp() -> Method:
    return _backprop("guided-bp", "logit", relu=rule(r.guided))


def deconv() -> Method:
    return _backprop("deconv", "logit", relu=rule(r.deconv))


def rect_grad(percentile: float = 98) -> Method:
    if not 0 <= percentile <= 100:
        raise ValueError(f"The percentile lies between 0 and 100, got {percentile}.")
    return _backprop("rect-grad", "logit", relu=rule(r.rect, percentile=percentile))


def pattern_net(patterns: Patterns | None = None) -> Method:
    """patterns: of this model, from `lrpjax.patterns.fit` or `lrpjax.patterns.load`."""
    return _with_patterns("pattern-net", _fitted("pattern-net", patterns).a, r.patterns.pattern)


def pattern_attribution(patterns: Patterns | None = None, *, frozen: bool = False) -> Method:
    """frozen: multiply by the weights the patterns were fitted with, whatever the model's are now,
    as the paper's code did."""
    fitted = _fitted("pattern-attribution", patterns)
    if not frozen:
        return _with_patterns("pattern-attribution", fitted.a, r.patterns.pattern_times_weights)
    products = {name: a * fitted.w[name] for name, a in fitted.a.items()}
    return _with_patterns("pattern-attribution (frozen)", products, r.patterns.pattern)


def _fitted(name: str, patterns: Patterns | None) -> Patterns:
    if patterns is None:
        raise ValueError(
            f"{name} needs patterns of the model: use lrpjax.methods.get({name!r}, "
            "patterns=lrpjax.patterns.fit(model, images))."
        )
    if not isinstance(patterns, Patterns):
        raise TypeError(
            f"The patterns come from lrpjax.patterns.fit or .load, got {type(patterns).__name__}."
        )
    return patterns


def _with_patterns(name: str, patterns: dict[str, Any], function: Callable) -> Method:
    made = _backprop(name, "logit", dense=rule(function), conv=rule(function))
    return replace(made, patterns=patterns)


MaxPool = Literal["complete", "gradient"]


def deeplift_rescale(baseline: Any = 0.0, *, max_pool: MaxPool = "complete") -> Method:
    """baseline: a number, one input, or a batch (B, ...) over which the contributions are averaged.

    max_pool: "complete" gives what the maximum gained to its winner and what the baseline's lost to
    that one's, so that contributions add up; "gradient" is the routing the paper ran.
    """
    pools = {"complete": d.complete_max, "gradient": r.winner_takes_all}
    composite = by_kind(
        linear=rule(r.gradient),
        activation=rule(d.rescale),
        add=rule(r.add_copy),
        max_pool=rule(_choice("max_pool", max_pool, pools)),
        sum=rule(r.gradient),
        structure=rule(r.gradient),
    )
    return Method("deeplift-rescale", composite, "one", baseline=_reference(baseline))


def deeplift_reveal_cancel(baseline: Any = 0.0, *, max_pool: MaxPool = "complete") -> Method:
    """As `deeplift_rescale`, with one multiplier for positive and one for negative differences."""
    return _paired("deeplift-reveal-cancel", baseline, max_pool, d.signed_linear, d.reveal_cancel)


def deeplift_ablation(
    baseline: Any = 0.0,
    *,
    max_pool: MaxPool = "complete",
    form: Literal["code", "text"] = "code",
) -> Method:
    """Rescale without the terms that mix the chains of both signs. form: of the paper's code, or
    of its text."""
    forms = {"code": d.ablated_code, "text": d.ablated_text}
    linear = _choice("form", form, forms)
    return _paired("deeplift-ablation", baseline, max_pool, linear, d.paired_rescale)


def _paired(
    name: str, baseline: Any, max_pool: str, linear: Callable, activation: Callable
) -> Method:
    pools = {"complete": d.paired_max, "gradient": d.paired_winner}
    composite = by_kind(
        linear=rule(linear),
        scale=rule(d.signed_scale),
        activation=rule(activation),
        add=rule(d.signed_add),
        max_pool=rule(_choice("max_pool", max_pool, pools)),
        sum=rule(d.paired_gradient),
        structure=rule(d.paired_gradient),
    )
    return Method(name, composite, "one", paired=True, baseline=_reference(baseline))


def _reference(baseline: Any) -> Any:
    """The baseline as a number or a copy of the array; TypeError or ValueError for what is none."""
    try:
        array = jnp.array(baseline)
    except TypeError:
        array = None
    if array is None or not jnp.isrealobj(array) or array.dtype == bool:
        raise TypeError(
            f"The baseline must be a number or an array of real numbers, got {baseline!r}."
        )
    checks.check_finite([array], ["the baseline"])
    return array


def _choice(option: str, value: str, choices: dict[str, Any]) -> Any:
    if value not in choices:
        raise ValueError(f"{option} is {' or '.join(map(repr, choices))}, got {value!r}.")
    return choices[value]


def integrated_gradients(base: str | Method | Estimator = "gradient", **options: Any) -> Estimator:
    """options: steps, quadrature, baseline, chunk: see `estimators.IntegratedGradients`."""
    reference = _reference(options.pop("baseline", 0.0))
    return IntegratedGradients(base=_value(base), baseline=reference, **options)


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
    chunk: int | None = None,
) -> Estimator:
    """See `estimators.Occlusion`."""
    reference = _reference(baseline)
    return Occlusion(window=window, stride=stride, baseline=reference, chunk=chunk)


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


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be greater than 0, got {value}.")
    return value


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
    "lrp-alpha2-beta1": Entry(partial(alpha_beta, 2, 1), _AB, "Bach et al. 2015", "yes", _SEEN),
    "lrp-alpha5-beta4": Entry(partial(alpha_beta, 5, 4), _AB, "Sixt et al. 2020", "yes", _SEEN),
    "lrp-flat": Entry(
        flat, "R_j = sum_i 1_ij / sum_k 1_ik R_i", "Lapuschkin et al. 2017", "yes", _YES
    ),
    "lrp-wsquare": Entry(
        wsquare, "R_j = sum_i W_ij^2 / sum_k W_ik^2 R_i", "Montavon et al. 2017", "yes", _YES
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


Explainer = Method | Estimator | InformationBottleneck  # what `lrpjax.attribute` takes


def get(name: str, **options: Any) -> Any:
    """The method of that name. Any lrp-alphaA-betaB is one, with A - B = 1.

    options: `fold`, `unknown` and `start` as on `Method`; all others go to the method's own
    function (`get("rect-grad", percentile=95)`).
    Raises ValueError for an unknown name, with the nearest ones, or a missing option.
    """
    common = {key: options.pop(key) for key in ("fold", "unknown", "start") if key in options}
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
    return replace(made, **common)


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
