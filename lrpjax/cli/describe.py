"""`lrpjax plan` and `lrpjax methods`: what is found in a model, and what there is to choose."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .common import JsonOption, say, write_json
from .factories import ModelOption, WeightsOption
from .image_options import BUNDLED_ONES, Chosen, takes_images
from .inputs import load


@takes_images()
def plan(
    method: Annotated[str, typer.Argument(help="A method's name; see `lrpjax methods`.")],
    model: ModelOption = "cifar10",
    weights: WeightsOption = None,
    images: Chosen = BUNDLED_ONES,
    check: Annotated[bool, typer.Option(help="Also run it: folding and conservation.")] = False,
    json_file: JsonOption = None,
) -> None:
    """The layers that are found in a model and the rule that each will get."""
    from ..planning.plans import plan as make_plan

    network, inputs = load(model, weights, images)
    made = make_plan(network, inputs.x, method)
    say(str(made))
    rows: list[dict[str, Any]] = made.rows
    if check:
        checked = made.check(inputs.x)
        rows = checked.rows
        say(f"\n{checked}")
    write_json(json_file, inputs.settings, rows)


def methods(json_file: JsonOption = None) -> None:
    """Every method with its formula and its source."""
    from .. import methods as known

    say(known.table())
    rows = [{"method": n, "formula": e.formula, "source": e.source} for n, e in known.TABLE.items()]
    write_json(json_file, {}, rows)
