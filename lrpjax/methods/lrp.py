"""The functions that make the named chains of rules, each with its row of `methods.TABLE`."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from .. import rules as r
from ..composites import first_layer, for_every_kind, or_else
from ..layers import Bound
from ..propagation.entries import SEEN, named, spelled
from ..propagation.method import Method as Method
from ..rules import Rule, rule

EPSILON = 1e-6
GAMMA = 0.25
CMP_EPSILON = 1e-10  # of the paper's composites
_AB = "R_j = sum_i (alpha c+_ij / sum_k c+_ik - beta c-_ij / sum_k c-_ik) R_i"
_YES = "yes: non-negative (Theorem 1)"
_BIAS = "up to bias"
_UNSHARED = "but in pools of zeros"
_PLAIN = "yes without residuals: non-negative (Theorem 1)"
_BOTH = "where both signs contribute"

Bias = Literal["none", "signed", "split"]
Clip = tuple[float, float] | None


Shares = dict[str, Rule]  # of additions and of sums


def _lrp(
    name: str, linear: Rule, shares: Shares, *, first: Rule | None = None, **kinds: Rule
) -> Method:
    below = for_every_kind(
        linear=linear,
        factor=rule(r.one_to_one),
        fixed=rule(r.z),
        transform=rule(r.input_times_gradient),
        control=None,
        unknown=None,
        max_pool=rule(r.winner_takes_all),
        activation=rule(r.pass_),
        structure=rule(r.moved),
        choice=rule(r.moved),
        norm=rule(r.pass_value),
        product=rule(r.product, of=linear, share="detached"),
        softmax=rule(r.softmax_taylor),
        **shares,
        **kinds,
    )
    return Method(name, or_else(first_layer(first), below) if first else below)


_SIGNED: Shares = {"add": rule(r.add_signed), "sum": rule(r.input_times_gradient)}


def _share(alpha: float, beta: float, clip: Clip = None) -> Shares:
    if clip is not None and (len(clip) != 2 or not clip[0] < clip[1]):
        raise ValueError(f"residual_clip is (low, high) with low < high, got {clip}.")
    clipped = {} if clip is None else {"clip": tuple(clip)}
    # Where only positive parts count, they do in sums too: no entry of Z may be negative.
    sums = r.input_times_gradient if beta else r.positive_share
    add = rule(r.add_alpha_beta, alpha=alpha, beta=beta, **clipped)
    return {"add": add, "sum": rule(sums)}


@named("lrp-z", "R_j = sum_i c_ij / z_i R_i", "Bach et al. 2015", _BIAS, "no")
def z() -> Method:
    return _lrp("lrp-z", rule(r.z), _SIGNED)


@named(
    "lrp-epsilon",
    "R_j = sum_i c_ij / (z_i + epsilon sign z_i) R_i",
    "Bach et al. 2015",
    "up to bias, epsilon",
    "no",
)
def epsilon(epsilon: float = EPSILON) -> Method:
    """epsilon: added to each |z_i|, in the units of the layer's output, whatever its size."""
    return _lrp("lrp-epsilon", rule(r.epsilon, epsilon=_positive("epsilon", epsilon)), _SIGNED)


@named(
    "lrp-gamma",
    "R_j = sum_i (c_ij + gamma c^s_ij) / sum_k (c_ik + gamma c^s_ik) R_i, s = sign z_i",
    "Montavon et al. 2019",
    _BIAS,
    "as gamma grows, like z+",
)
def gamma(gamma: float = GAMMA) -> Method:
    """gamma: by how much contributions of the output's sign are strengthened, greater than 0."""
    return _lrp("lrp-gamma", rule(r.gamma, gamma=_positive("gamma", gamma)), _SIGNED)


@named("lrp-zplus", "R_j = sum_i c+_ij / sum_k c+_ik R_i", "Montavon et al. 2017", "yes", _YES)
def zplus() -> Method:
    return _lrp("lrp-zplus", rule(r.zplus), _share(1, 0))


@spelled(r"lrp-alpha(\d+(?:\.\d+)?)-beta(\d+(?:\.\d+)?)")
@named("lrp-alpha5-beta4", _AB, "Sixt et al. 2020", _BOTH, SEEN, arguments=(5, 4))
@named("lrp-alpha2-beta1", _AB, "Bach et al. 2015", _BOTH, SEEN, arguments=(2, 1))
@named("lrp-alpha1-beta0", _AB, "Bach et al. 2015", "yes", _YES, arguments=(1, 0))
def alpha_beta(
    alpha: float, beta: float, *, bias: Bias = "none", residual_clip: Clip = None
) -> Method:
    """alpha, beta: the shares of positive and negative contributions, alpha - beta = 1.

    bias: "none" (the paper's theory), "signed" (what the paper ran), or "split".

    residual_clip: (low, high) that relevance is clipped to behind a residual addition. On ResNet-50
    the paper's code ran bias="signed", residual_clip=(0, 1000) and fold=False.
    """
    name = f"lrp-alpha{alpha:g}-beta{beta:g}{_suffix(bias, residual_clip)}"
    return _lrp(name, _alpha_beta_rule(alpha, beta, bias), _share(alpha, beta, residual_clip))


def _alpha_beta_rule(alpha: float, beta: float, bias: Bias) -> Rule:
    if not (1 <= alpha < float("inf") and abs(alpha - beta - 1) <= 1e-9):
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


@named("lrp-flat", "R_j = sum_i 1_ij / sum_k 1_ik R_i", "Lapuschkin et al. 2017", _UNSHARED, _PLAIN)
def flat() -> Method:
    return _lrp("lrp-flat", rule(r.flat), _SIGNED)


@named(
    "lrp-wsquare",
    "R_j = sum_i W_ij^2 / sum_k W_ik^2 R_i",
    "Montavon et al. 2017",
    _UNSHARED,
    _PLAIN,
)
def wsquare() -> Method:
    return _lrp("lrp-wsquare", rule(r.wsquare), _SIGNED)


@named(
    "lrp-cmp-alpha2-beta1",
    "epsilon on dense, alpha2-beta1 on the rest",
    "Kohlbrenner et al. 2020",
    "up to bias of dense",
    "not in the dense part",
    arguments=(2, 1),
)
@named(
    "lrp-cmp-alpha1-beta0",
    "epsilon on dense, alpha1-beta0 on the rest",
    "Kohlbrenner et al. 2020",
    "up to bias of dense",
    "not in the dense part",
    arguments=(1, 0),
)
def cmp_alpha_beta(
    alpha: float, beta: float, *, bias: Bias = "none", residual_clip: Clip = None
) -> Method:
    """The paper's composite, which it ran with bias "signed".

    alpha, beta, bias, residual_clip: as in `alpha_beta`.
    """
    below = _alpha_beta_rule(alpha, beta, bias)
    dense = rule(r.epsilon, epsilon=CMP_EPSILON)
    name = f"lrp-cmp-alpha{alpha:g}-beta{beta:g}{_suffix(bias, residual_clip)}"
    return _lrp(name, below, _share(alpha, beta, residual_clip), dense=dense)


@named(
    "epsilon-plus-flat",
    "epsilon on dense, z+ on the rest, flat on the first layer",
    "Kohlbrenner et al. 2020; Anders et al. 2021",
    "up to bias of dense",
    "not in the dense part",
)
def epsilon_plus_flat(epsilon: float = EPSILON) -> Method:
    """epsilon: as in `epsilon`, of the dense layers."""
    return _lrp(
        "epsilon-plus-flat",
        rule(r.zplus),
        _share(1, 0),
        dense=rule(r.epsilon, epsilon=_positive("epsilon", epsilon)),
        first=rule(r.flat),
    )


@named(
    "epsilon-gamma-box",
    "epsilon on dense, gamma on the rest, z-box on the first layer",
    "Montavon et al. 2019; Anders et al. 2021",
    _BIAS,
    "no",
    needs="input_range",
)
def epsilon_gamma_box(
    low: Bound | None = None,
    high: Bound | None = None,
    *,
    epsilon: float = EPSILON,
    gamma: float = GAMMA,
) -> Method:
    """low, high: the smallest and the largest value an input can take, a number or one for each
    channel. epsilon, gamma: as in `epsilon` and `gamma`."""
    low, high = _range("epsilon-gamma-box", low, high)
    made = _lrp(
        "epsilon-gamma-box",
        rule(r.gamma, gamma=_positive("gamma", gamma)),
        _SIGNED,
        dense=rule(r.epsilon, epsilon=_positive("epsilon", epsilon)),
        first=rule(r.zbox, low=low, high=high),
    )
    return replace(made, input_range=(low, high))


@named(
    "deep-taylor",
    "z+, and z-box (or w-square) on the first layer",
    "Montavon et al. 2017",
    "yes",
    _YES,
    needs="input_range",
)
def deep_taylor(
    low: Bound | None = None,
    high: Bound | None = None,
    *,
    first: Literal["zbox", "wsquare"] = "zbox",
) -> Method:
    """low, high: the range of the input, a number or one for each channel, which the rule "zbox"
    of the `first` layer needs; "wsquare" is for an input without bounds."""
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
    if not fits or not np.all((-np.inf < l) & (l < u) & (u < np.inf)):
        raise ValueError(
            f"{name} needs low < high, each a finite number or one for each channel, got "
            f"low={low} and high={high}."
        )
    return tuple(l.tolist()) if l.ndim else l.item(), tuple(u.tolist()) if u.ndim else u.item()


@named("excitation-bp", "z+ started from 1", "Zhang et al. 2018", "yes", _YES)
def excitation_bp() -> Method:
    return replace(zplus(), name="excitation-bp", start="one")


def _positive(name: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be greater than 0 and finite, got {value}.")
    return value


# A kind of layer that is forgotten is an error when this is imported.
_lrp("LRP", rule(r.z), _SIGNED)
