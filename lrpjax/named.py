"""The functions that make the named chains of rules; `methods.TABLE` lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from . import checks
from . import rules as r
from .composites import by_kind, first_layer, or_else
from .method import Method as Method
from .method import Start
from .patterns import Patterns
from .rules import Rule, rule
from .rules import deeplift as d

EPSILON = 1e-6
GAMMA = 0.25
CMP_EPSILON = 1e-10  # of the paper's composites
Bias = Literal["none", "signed", "split"]
Clip = tuple[float, float] | None
Bound = float | tuple[float, ...]  # of the input: one number, or one for each channel


Shares = dict[str, Rule]  # of additions and of sums


def _lrp(
    name: str, linear: Rule, shares: Shares, *, first: Rule | None = None, **kinds: Rule
) -> Method:
    below = by_kind(
        linear=linear,
        max_pool=rule(r.winner_takes_all),
        activation=rule(r.pass_),
        structure=rule(r.gradient),
        norm=rule(r.pass_value),
        product=rule(r.product, of=linear, share="detached"),
        softmax=rule(r.softmax_taylor),
        **shares,
        **kinds,
    )
    return Method(name, or_else(first_layer(first), below) if first else below)


def _backprop(name: str, start: Start, *, times_input=False, **kinds: Rule) -> Method:
    """The model's derivative, but for layers of some kinds."""
    names = "linear sum add max_pool activation structure norm product softmax unknown".split()
    everything = {kind: rule(r.gradient) for kind in names}
    return Method(name, by_kind(**(everything | kinds)), start, times_input, derivative=True)


_SIGNED: Shares = {"add": rule(r.add_signed), "sum": rule(r.input_times_gradient)}


def _share(alpha: float, beta: float, clip: Clip = None) -> Shares:
    if clip is not None and (len(clip) != 2 or not clip[0] < clip[1]):
        raise ValueError(f"residual_clip is (low, high) with low < high, got {clip}.")
    clipped = {} if clip is None else {"clip": tuple(clip)}
    # Where only positive parts count, they do in sums too: no entry of Z may be negative.
    sums = r.input_times_gradient if beta else r.positive_share
    add = rule(r.add_alpha_beta, alpha=alpha, beta=beta, **clipped)
    return {"add": add, "sum": rule(sums)}


def z() -> Method:
    return _lrp("lrp-z", rule(r.z), _SIGNED)


def epsilon(epsilon: float = EPSILON) -> Method:
    return _lrp("lrp-epsilon", rule(r.epsilon, epsilon=_positive("epsilon", epsilon)), _SIGNED)


def gamma(gamma: float = GAMMA) -> Method:
    return _lrp("lrp-gamma", rule(r.gamma, gamma=_positive("gamma", gamma)), _SIGNED)


def zplus() -> Method:
    return _lrp("lrp-zplus", rule(r.zplus), _share(1, 0))


def alpha_beta(
    alpha: float, beta: float, *, bias: Bias = "none", residual_clip: Clip = None
) -> Method:
    """bias: "none" (the paper's theory), "signed" (what the paper ran), or "split".

    residual_clip: (low, high) that relevance is clipped to behind a residual addition. On ResNet-50
    the paper's code ran bias="signed", residual_clip=(0, 1000) and fold=False.
    """
    name = f"lrp-alpha{alpha:g}-beta{beta:g}{_suffix(bias, residual_clip)}"
    return _lrp(name, _alpha_beta_rule(alpha, beta, bias), _share(alpha, beta, residual_clip))


def _alpha_beta_rule(alpha: float, beta: float, bias: Bias) -> Rule:
    if alpha < 1 or abs(alpha - beta - 1) > 1e-9:
        raise ValueError(
            f"alpha-beta LRP needs alpha >= 1 and alpha - beta = 1, got alpha={alpha:g} and "
            f"beta={beta:g}."
        )
    if bias not in ("none", "signed", "split"):
        raise ValueError(f'The bias mode is "none", "signed" or "split", got {bias!r}.')
    return rule(r.alpha_beta, alpha=alpha, beta=beta, bias=bias)


def _suffix(bias: Bias, clip: Clip) -> str:
    parts = [] if bias == "none" else [f"bias {bias}"]
    parts += [] if clip is None else [f"clip {clip[0]:g} to {clip[1]:g}"]
    return f" ({', '.join(parts)})" if parts else ""


def flat() -> Method:
    return _lrp("lrp-flat", rule(r.flat), _SIGNED)


def wsquare() -> Method:
    return _lrp("lrp-wsquare", rule(r.wsquare), _SIGNED)


def cmp_alpha_beta(
    alpha: float, beta: float, *, bias: Bias = "none", residual_clip: Clip = None
) -> Method:
    """The paper's composite: epsilon on dense layers, alpha-beta below (it ran bias "signed").

    residual_clip: as in `alpha_beta`.
    """
    below = _alpha_beta_rule(alpha, beta, bias)
    dense = rule(r.epsilon, epsilon=CMP_EPSILON)
    name = f"lrp-cmp-alpha{alpha:g}-beta{beta:g}{_suffix(bias, residual_clip)}"
    return _lrp(name, below, _share(alpha, beta, residual_clip), dense=dense)


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
    return _backprop("gradient", "one", control=rule(r.gradient))


def input_x_gradient() -> Method:
    return _backprop("input-x-gradient", "one", times_input=True, control=rule(r.gradient))


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
    special = {"add": rule(r.add_copy), "max_pool": rule(r.winner_takes_all)}
    made = _backprop(name, "logit", dense=rule(function), conv=rule(function), **special)
    return replace(made, patterns=patterns, derivative=False)


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
    return Method("deeplift-rescale", composite, "one", baseline=reference(baseline))


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
    return Method(name, composite, "one", paired=True, baseline=reference(baseline))


def reference(baseline: Any) -> Any:
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


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be greater than 0, got {value}.")
    return value
