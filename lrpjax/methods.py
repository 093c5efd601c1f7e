"""The named methods: which rule where, what to start from and what to read out. One table."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import Any, Literal

from . import rules as r
from ._text import columns
from .composites import Composite, by_kind, first_layer, or_else
from .rules import Rule, rule

EPSILON = 1e-6
GAMMA = 0.25
CMP_EPSILON = 1e-10  # of the paper's composites
Bias = Literal["none", "signed", "split"]


@dataclass(frozen=True)
class Method:
    """A way of propagating relevance, as a value.

    composite: from a layer's description to its rule.
    start: relevance of the explained unit: its "logit", or "one".
    times_input: whether the read-out multiplies by the input.
    fold: whether BatchNorm and the like are folded into the product next to them.
    unknown: "error", or "gradient" for layers that no rule covers.
    """

    name: str
    composite: Composite
    start: Literal["logit", "one"] = "logit"
    times_input: bool = False
    fold: bool = True
    unknown: Literal["error", "gradient"] = "error"

    def __post_init__(self) -> None:
        for option, allowed in (("start", ("logit", "one")), ("unknown", ("error", "gradient"))):
            if getattr(self, option) not in allowed:
                raise ValueError(
                    f"{option} is {' or '.join(map(repr, allowed))}, got {getattr(self, option)!r}."
                )

    def rule_for(self, layer: Any) -> Rule | None:
        found = self.composite(layer)
        return rule(r.gradient) if found is None and self.unknown == "gradient" else found

    def __str__(self) -> str:
        return self.name


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


def _backprop(name: str, start: Literal["logit", "one"], *, times_input=False, **kinds: Rule):
    names = ("linear", "sum", "activation", "structure", "unknown")
    everything = {kind: rule(r.gradient) for kind in names}
    special = {"add": rule(r.add_copy), "max_pool": rule(r.winner_takes_all)}
    return Method(name, by_kind(**everything, **special, **kinds), start, times_input)


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
    low: float, high: float, *, epsilon: float = EPSILON, gamma: float = GAMMA
) -> Method:
    """low, high: the smallest and the largest value an input can take."""
    if not low < high:
        raise ValueError(f"The box needs low < high, got low={low} and high={high}.")
    return _lrp(
        "epsilon-gamma-box",
        rule(r.gamma, gamma=_positive("gamma", gamma)),
        _SIGNED,
        dense=rule(r.epsilon, epsilon=_positive("epsilon", epsilon)),
        first=rule(r.zbox, low=low, high=high),
    )


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


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be greater than 0, got {value}.")
    return value


@dataclass(frozen=True)
class Entry:
    """A row of the table: how to make the method, its formula and its source."""

    make: Callable[..., Method]
    formula: str
    source: str
    needs_range: bool = False


_AB = "R_j = sum_i (alpha c+_ij / sum_k c+_ik - beta c-_ij / sum_k c-_ik) R_i"
TABLE: dict[str, Entry] = {
    "gradient": Entry(gradient, "J^T 1_t", "Simonyan et al. 2014"),
    "input-x-gradient": Entry(input_x_gradient, "x * J^T 1_t", "Shrikumar et al. 2016"),
    "lrp-z": Entry(z, "R_j = sum_i c_ij / z_i R_i", "Bach et al. 2015"),
    "lrp-epsilon": Entry(
        epsilon, "R_j = sum_i c_ij / (z_i + epsilon sign z_i) R_i", "Bach et al. 2015"
    ),
    "lrp-gamma": Entry(
        gamma, "R_j = sum_i (c_ij + gamma c^s_ij) / sum_k (c_ik + gamma c^s_ik) R_i, s = sign z_i",
        "Montavon et al. 2019",
    ),
    "lrp-zplus": Entry(zplus, "R_j = sum_i c+_ij / sum_k c+_ik R_i", "Montavon et al. 2017"),
    "lrp-alpha1-beta0": Entry(partial(alpha_beta, 1, 0), _AB, "Bach et al. 2015"),
    "lrp-alpha2-beta1": Entry(partial(alpha_beta, 2, 1), _AB, "Bach et al. 2015"),
    "lrp-alpha5-beta4": Entry(partial(alpha_beta, 5, 4), _AB, "Sixt et al. 2020"),
    "lrp-flat": Entry(flat, "R_j = sum_i 1_ij / sum_k 1_ik R_i", "Lapuschkin et al. 2017"),
    "lrp-wsquare": Entry(
        wsquare, "R_j = sum_i W_ij^2 / sum_k W_ik^2 R_i", "Montavon et al. 2017"
    ),
    "lrp-cmp-alpha1-beta0": Entry(
        partial(cmp_alpha_beta, 1, 0), "epsilon on dense, alpha1-beta0 on the rest",
        "Kohlbrenner et al. 2020",
    ),
    "lrp-cmp-alpha2-beta1": Entry(
        partial(cmp_alpha_beta, 2, 1), "epsilon on dense, alpha2-beta1 on the rest",
        "Kohlbrenner et al. 2020",
    ),
    "epsilon-plus-flat": Entry(
        epsilon_plus_flat, "epsilon on dense, z+ on the rest, flat on the first layer",
        "Kohlbrenner et al. 2020; Anders et al. 2021",
    ),
    "epsilon-gamma-box": Entry(
        epsilon_gamma_box, "epsilon on dense, gamma on the rest, z-box on the first layer",
        "Montavon et al. 2019; Anders et al. 2021", needs_range=True,
    ),
    "excitation-bp": Entry(excitation_bp, "z+ started from 1", "Zhang et al. 2018"),
    "guided-bp": Entry(
        guided_bp, "J^T with 1[x > 0] max(R, 0) at each ReLU", "Springenberg et al. 2015"
    ),
    "deconv": Entry(deconv, "J^T with max(R, 0) at each ReLU", "Zeiler and Fergus 2014"),
    "rect-grad": Entry(
        rect_grad, "J^T with 1[x > 0] 1[y R > tau] R at each ReLU, tau the 98th percentile",
        "Kim et al. 2019",
    ),
}  # fmt: skip


def get(name: str, **options: Any) -> Method:
    """The method of that name. Any lrp-alphaA-betaB is one, with A - B = 1.

    options: `fold`, `unknown` and `start` as on `Method`; all others go to the method's own
    function (`get("rect-grad", percentile=95)`).
    Raises ValueError for an unknown name, with the nearest ones, or a missing option.
    """
    common = {key: options.pop(key) for key in ("fold", "unknown", "start") if key in options}
    if match := re.fullmatch(r"lrp-alpha(\d+(?:\.\d+)?)-beta(\d+(?:\.\d+)?)", name):
        made = alpha_beta(float(match[1]), float(match[2]), **options)
    elif name not in TABLE:
        near = get_close_matches(name, TABLE, 3, 0.4) or list(TABLE)
        raise ValueError(f"There is no method {name!r}; the nearest are {', '.join(near)}.")
    elif TABLE[name].needs_range and not {"low", "high"} <= options.keys():
        raise ValueError(
            f"{name} needs the range of the input: use "
            f"lrpjax.methods.get({name!r}, low=..., high=...)."
        )
    else:
        made = TABLE[name].make(**options)
    return replace(made, **common)


def resolve(method: str | Method, model: Any) -> Method:
    """The method as a value. A method that needs the input's range takes it from the model's
    `input_range`, where it has one."""
    if isinstance(method, Method):
        return method
    if not isinstance(method, str):
        raise TypeError(f"A method is a name or an lrpjax.methods.Method, got {method!r}.")
    bounds = getattr(model, "input_range", None)
    if method in TABLE and TABLE[method].needs_range and bounds is not None:
        return get(method, low=bounds[0], high=bounds[1])
    return get(method)


def table() -> str:
    """Every named method with its formula and its source, as text.

    c_ij = W_ij x_j is what input j contributes to output i; + and - are its signed parts.
    """
    rows = [{"method": n, "formula": e.formula, "source": e.source} for n, e in TABLE.items()]
    return columns(rows)
