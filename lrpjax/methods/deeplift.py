"""The functions that make the methods of differences from a baseline, each with its row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from .. import rules as r
from ..composites import Composite, for_every_kind
from ..propagation.baselines import Baseline, baseline_of
from ..propagation.entries import named
from ..propagation.method import Method
from ..rules import Rule, rule
from ..rules import deeplift as d

MaxPool = Literal["complete", "gradient"]
# The kinds for which no difference from a reference is defined.
_WITHOUT = dict.fromkeys(("norm", "softmax", "product", "choice", "control", "unknown"))


@named(
    "deeplift-rescale",
    "D * W^T m; m_x = m_y D_y / D_x at activations",
    "Shrikumar et al. 2017",
    "sum is f(x) - f(x0)",
    "no",
)
def deeplift_rescale(
    baseline: Any = 0.0,
    *,
    baselines: Any = None,
    max_pool: MaxPool = "complete",
    near_zero: float | None = None,
) -> Method:
    """baseline: a number, one input, or one for each image (N, ...). baselines: a set (K, ...) over
    which the contributions are averaged. Both are pytrees where the model's input is one.

    max_pool: "complete" gives what the maximum gained to its winner and what the baseline's lost to
    that one's, so that contributions add up; "gradient" is the routing the paper ran. near_zero:
    an absolute number below which an activation's difference counts as none (default: 1e-7 of the
    layer's largest input for one example).
    """
    composite = _single(max_pool, _near_zero(d.rescale, near_zero))
    x0 = baseline_of(baseline, baselines)
    return Method("deeplift-rescale", composite, "one", baseline=x0)


def _single(max_pool: str, activation: Rule) -> Composite:
    pools = {"complete": d.complete_max, "gradient": r.winner_takes_all}
    return for_every_kind(
        linear=rule(r.gradient),
        activation=activation,
        add=rule(r.add_copy),
        max_pool=rule(_choice("max_pool", max_pool, pools)),
        sum=rule(r.gradient),
        transform=rule(r.gradient),
        structure=rule(r.moved),
        **_WITHOUT,
    )


@named(
    "deeplift-reveal-cancel",
    "D+ * m+ + D- * m-; m+_x = m+_y D+_y / D+_x at activations",
    "Shrikumar et al. 2017",
    "sum is f(x) - f(x0)",
    "no",
)
def deeplift_reveal_cancel(
    baseline: Any = 0.0,
    *,
    baselines: Any = None,
    max_pool: MaxPool = "complete",
    near_zero: float | None = None,
) -> Method:
    """One multiplier for positive and one for negative differences.

    baseline, baselines, max_pool, near_zero: as in `deeplift_rescale`.
    """
    x0 = baseline_of(baseline, baselines)
    return _paired(
        "deeplift-reveal-cancel",
        x0,
        max_pool,
        d.signed_linear,
        _near_zero(d.reveal_cancel, near_zero),
    )


@named(
    "deeplift-ablation",
    "rescale without W-: m_x = W+^T m+ where D > 0, W+^T m- where D < 0",
    "Sixt et al. 2020",
    "no",
    "yes: the chains no longer mix",
)
def deeplift_ablation(
    baseline: Any = 0.0,
    *,
    baselines: Any = None,
    max_pool: MaxPool = "complete",
    form: Literal["code", "text"] = "code",
    near_zero: float | None = None,
) -> Method:
    """Rescale without the terms that mix the chains of both signs.

    baseline, baselines, max_pool, near_zero: as in `deeplift_rescale`. form: of the paper's code,
    or of its
    text.
    """
    forms = {"code": d.ablated_code, "text": d.ablated_text}
    linear = _choice("form", form, forms)
    x0 = baseline_of(baseline, baselines)
    return _paired(
        "deeplift-ablation", x0, max_pool, linear, _near_zero(d.paired_rescale, near_zero)
    )


def _paired(
    name: str, baseline: Baseline, max_pool: str, linear: Callable, activation: Rule
) -> Method:
    composite = _pairs(max_pool, linear, activation)
    return Method(name, composite, "one", paired=True, baseline=baseline)


def _pairs(max_pool: str, linear: Callable, activation: Rule) -> Composite:
    pools = {"complete": d.paired_max, "gradient": d.paired_winner}
    return for_every_kind(
        linear=rule(linear),
        scale=rule(d.signed_scale),
        activation=activation,
        add=rule(d.signed_add),
        max_pool=rule(_choice("max_pool", max_pool, pools)),
        sum=rule(d.paired_gradient),
        transform=rule(d.paired_gradient),
        structure=rule(d.paired_moved),
        factor=rule(d.signed_scale),
        **_WITHOUT,
    )


def _near_zero(function: Callable, near_zero: float | None) -> Rule:
    if near_zero is None:
        return rule(function)
    if not 0 < near_zero < float("inf"):
        raise ValueError(f"near_zero must be greater than 0 and finite, got {near_zero}.")
    return rule(function, near_zero=near_zero)


def _choice(option: str, value: str, choices: dict[str, Any]) -> Any:
    if value not in choices:
        raise ValueError(f"{option} is {' or '.join(map(repr, choices))}, got {value!r}.")
    return choices[value]


# A kind of layer that is forgotten is an error when this is imported.
_FAMILIES = (
    _single("complete", rule(d.rescale)),
    _pairs("complete", d.signed_linear, rule(d.rescale)),
)
