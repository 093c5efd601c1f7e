"""--model and --weights: networks by name, and what a user's own factory makes."""

from __future__ import annotations

import importlib
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Annotated, Any

import typer

IMAGENET = "vgg11 vgg13 vgg16 vgg19 resnet18 resnet34 resnet50 resnet101".split()
NAMED = ("cifar10", *IMAGENET)
EXAMPLE = """\
import jax
import jax.numpy as jnp


def apply(weights, x):  # (N, 28, 28, 1) to (N, 2)
    return jax.nn.relu(x.reshape(len(x), -1) @ weights["first"]) @ weights["last"]


def make():
    model = jax.tree_util.Partial(apply, dict(jnp.load("weights.npz")))
    model.image_size = (28, 28, 1)
    model.preprocess = lambda levels: jnp.asarray(levels, jnp.float32) / 255
    model.input_range = (0, 1)
    model.classes = ["cat", "dog"]
    return model
"""
ABOUT = """A model of your own: `--model package.module:function` names a factory, a function that
needs no argument and returns a callable, from inputs `(N, ...)` to outputs. What it returns may
have these attributes, also where it is a `functools.partial` or a `jax.tree_util.Partial`:
`image_size`, `(H, W)`, or `(H, W, C)` where C is not 3, to which images are resized; `preprocess`,
from levels `(N, H, W, C)` between 0 and 255, uint8, or float32 where files hold more than 8 bits,
to inputs (without it they are divided by 255); `input_range`, the least and the largest input, or
those of each channel; `classes`, the names of the outputs; `patterns`, of `lrpjax.patterns`. With
this in `my_model.py` it is `--model my_model:make`:"""

ModelOption = Annotated[
    str,
    typer.Option(
        help="cifar10, vgg16, resnet50 (also vgg11, 13, 19, resnet18, 34, 101), or "
        "package.module:function, a factory without arguments; `lrpjax --help` has an example."
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        help="Of a named model: a file (safetensors, torch's .pth, Keras' .h5), a Hugging Face "
        "repository, or random. Default: trained ones (those of ImageNet are fetched once)."
    ),
]


def model_named(name: str, weights: str | None = None) -> Any:
    """The named model with these weights, or what the factory package.module:function makes."""
    import jax

    from .. import models

    if name in NAMED:
        chosen = {} if weights is None else {"weights": weights}
        return getattr(models, name)(key=jax.random.key(0), **chosen)
    if ":" not in name:
        raise ValueError(
            f"There is no model {name!r}: use one of {', '.join(NAMED)}, or "
            "package.module:function."
        )
    if weights is not None:
        raise ValueError(
            f"The factory {name} makes the model with its weights: leave out --weights."
        )
    return _made(name)


@dataclass(frozen=True)
class Stated:
    """What a model says of itself. size: (height, width); channels: None where it does not say.
    preprocess: from levels to inputs. input_range, patterns: read where they are needed."""

    size: tuple[int, int] | None
    channels: int | None
    classes: list[str]
    preprocess: Callable | None


def stated_by(network: Any) -> Stated:
    """The attributes that a model has; ValueError, with what is wanted, for one that is no such."""
    size = _of(network, "image_size", _numbers, "two or three whole numbers, (H, W) or (H, W, C)")
    classes = _of(network, "classes", _names, "a list of names")
    preprocess = _of(network, "preprocess", _function, "a function of levels (N, H, W, C)")
    _of(network, "input_range", _pair, "two numbers, or two lists of one for each channel")
    channels = size[2] if size and len(size) == 3 else None
    return Stated(size and (size[0], size[1]), channels, classes or [], preprocess)


def _of(network: Any, name: str, convert: Callable[[Any], Any], wanted: str) -> Any:
    given = getattr(network, name, None)
    if given is None:
        return None
    try:
        return convert(given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The model's `{name}` must be {wanted}, got {given!r}.") from error


def _numbers(given: Any) -> tuple[int, ...]:
    numbers = tuple(map(index, given))
    if len(numbers) not in (2, 3) or min(numbers) < 1:
        raise ValueError
    return numbers


def _names(given: Any) -> list[str]:
    if isinstance(given, str | bytes | dict):
        raise TypeError
    return list(map(str, given))


def _function(given: Any) -> Callable:
    if not callable(given):
        raise TypeError
    return given


def _pair(given: Any) -> None:
    import numpy as np

    low, high = (np.asarray(bound, float) for bound in given)
    if not (low <= high).all():
        raise ValueError


def _made(name: str) -> Any:
    """What a factory returns; ValueError, with the user's own frames, where it returns no model."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"--model {name} is not package.module:function.")
    sys.path.insert(0, "")  # the user's own module, beside where the command is run
    found = None
    with told(f"The module {module!r} cannot be imported"):
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):
                raise  # one that the user's own asks for
    if found is None:
        raise ValueError(
            f"There is no module {module!r} for --model {name}: it is looked for in this folder "
            "and among what is installed."
        )
    if not hasattr(found, function):
        raise ValueError(f"The module {module!r} has no function {function!r}.")
    factory = getattr(found, function)
    if needed := _arguments(factory):
        raise ValueError(
            f"{name} is no function without arguments, {needed}: --model takes one that returns "
            f"the model, such as `def make(): return {function}` where that is the model itself."
        )
    with told(f"The factory {name} failed"):
        made = factory()
    if not callable(made):
        raise ValueError(
            f"The factory {name} returned {_kind(made)}: it must return the model, a function from "
            "a batch of inputs to outputs."
        )
    return made


def _arguments(factory: Any) -> str:
    """Why it cannot be called without arguments; "" if it can be, as far as can be seen."""
    if not callable(factory):
        return f"but {_kind(factory)}"
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return ""
    needed = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    return f"it needs {', '.join(needed)}" if needed else ""


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turns what is raised inside into one sentence, and the frames that are the user's."""
    try:
        yield
    except (Exception, SystemExit) as error:
        *_, last = traceback.format_exception_only(error)
        place = ""
        if isinstance(error, SyntaxError):
            place = "".join(traceback.format_exception_only(error)[:-1])
        said = f"{what}: {last.strip().splitlines()[0] if last.strip() else type(error).__name__}"
        raise ValueError(f"{said}\n{_frames(error)}{place}".rstrip()) from error


def _frames(error: BaseException) -> str:
    """The lines of a traceback that are in files of the user, or at least none of ours."""
    ours = str(Path(__file__).parents[1])
    paths = sysconfig.get_paths()
    installed, python = (paths["purelib"], paths["platlib"]), paths["stdlib"]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((ours, "<frozen "))
        and (frame.filename.startswith(installed) or not frame.filename.startswith(python))
    ]
    users = [frame for frame in frames if not frame.filename.startswith(installed)]
    return "".join(traceback.format_list(users or frames))
