"""The options of every command that takes images."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from .common import parameters_of, with_parameters

BUNDLED = 20  # images


@dataclass(frozen=True)
class Chosen:
    """What the options of `takes_images` say."""

    images: tuple[Path, ...] = ()
    size: tuple[int, int] | None = None
    crop: bool = False
    background: str = "white"
    values: tuple[float, float] | None = None
    max_pixels: int | None = None  # that of `load_images`
    labels: str | None = None

    def also(self, files: Sequence[Path]) -> Chosen:
        return replace(self, images=(*self.images, *files))

    def given(self) -> dict[str, Any]:
        """What is not as it is by default, by the names of the options."""
        names = {"values": "range"}
        default = Chosen(self.images)
        return {
            names.get(field, field): list(value) if isinstance(value, tuple) else value
            for field, value in vars(self).items()
            if value != getattr(default, field)
        }


BUNDLED_ONES = Chosen()


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text)
    if not found:
        raise typer.BadParameter(f"{text!r} is no size such as 224 or 224x320.")
    return int(found[1]), int(found[2] or found[1])


def _options(bundled: int, labels: bool) -> dict[str, Any]:
    """The annotation of each option."""
    made: dict[str, Any] = {
        "images": Annotated[
            list[Path] | None,
            typer.Option(
                "--images",
                help="A picture, a folder of them, an .npz with `images` (N, ...) or an .npy with "
                f"one (repeatable). Default: {bundled} bundled ones.",
            ),
        ],
        "size": Annotated[
            str | None,
            typer.Option(
                metavar="H|HxW",
                callback=_size,
                help="To which images are resized. Default: the model's `image_size`.",
            ),
        ],
        "crop": Annotated[
            bool,
            typer.Option(
                "--crop",
                help="Keep proportions: resize the short side to size x 256/224 and cut out the "
                "centre. Default: resize whole images, as the paper does.",
            ),
        ],
        "background": Annotated[
            str, typer.Option(help="Behind transparent pixels: a name or #rrggbb.")
        ],
        "values": Annotated[
            tuple[float, float] | None,
            typer.Option(
                "--range",
                metavar="LOW HIGH",
                help="Black and white of floats, and of integers of more than 8 bits, whose "
                "default is the range of their type.",
            ),
        ],
        "max_pixels": Annotated[
            int | None,
            typer.Option(
                help="Larger pictures are skipped, as they may be a trap. Default: 100 million.",
                min=1,
            ),
        ],
    }
    if labels:
        made["labels"] = Annotated[
            str | None,
            typer.Option(
                metavar="CSV|folders",
                help="The class of each image: a CSV file with the columns image and label, or "
                "folders for the subfolder it lies in.",
            ),
        ]
    return made


def takes_images(bundled: int = BUNDLED, *, labels: bool = False) -> Callable[[Callable], Callable]:
    """Gives a command, whose parameter `images` is a `Chosen`, an option for each of its fields.

    bundled: how many the command takes by itself. labels: whether it explains targets.
    """

    def decorated(command: Callable) -> Callable:
        options = _options(bundled, labels)
        defaults = dict.fromkeys(options) | {"crop": False, "background": "white"}
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters: list[inspect.Parameter] = []
        for own in parameters_of(command):
            parameters += (
                [own]
                if own.name != "images"
                else [
                    inspect.Parameter(n, keyword, default=defaults[n], annotation=annotation)
                    for n, annotation in options.items()
                ]
            )

        @wraps(command)
        def call(**given: Any) -> Any:
            chosen = {name: given.pop(name) for name in options}
            files = tuple(chosen.pop("images") or ())
            return command(**given, images=Chosen(files, **chosen))

        return with_parameters(call, parameters)

    return decorated
