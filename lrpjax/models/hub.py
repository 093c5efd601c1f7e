"""Where a weight file comes from: a path, or a repository of Hugging Face; and its digest."""

from __future__ import annotations

import re
from hashlib import file_digest
from os import PathLike
from pathlib import Path

from .._base.reading import reading

REPOSITORY = r"[\w.-]+/[\w.-]+"
FILE_NAME = "model.safetensors"


def local_file(weights: str | PathLike) -> Path:
    """The path of the weight file, fetched first if `weights` is a repository ("timm/...").

    Its sha256 is checked where its name holds it: that of a fetched file in the cache, and the
    first eight digits in "resnet50-0676ba61.pth".
    Raises FileNotFoundError for a missing file, OSError where it cannot be fetched or read,
    ValueError for another digest and for what is no file, ImportError where huggingface-hub is
    missing.
    """
    path = Path(weights)
    if isinstance(weights, str) and not path.exists() and _is_repository(weights):
        path = _fetch(weights)
    if not path.exists():
        raise FileNotFoundError(
            f"There is no weight file {str(weights)!r}: check the path, or name a repository of "
            'Hugging Face ("timm/resnet50.tv_in1k").'
        )
    with reading(path, "weight file"):
        promised = _promised_digest(path)
        found = _sha256(path) if promised else ""
    if not found.startswith(promised):
        raise ValueError(
            f"The weight file {str(path.resolve())!r} is damaged: its sha256 should begin with "
            f"{promised[:8]} and begins with {found[:8]}, so delete it and fetch it again."
        )
    return path


def _is_repository(weights: str) -> bool:
    suffixes = (".safetensors", ".pth", ".pt", ".bin", ".h5", ".hdf5", ".keras")
    return bool(re.fullmatch(REPOSITORY, weights)) and not weights.endswith(suffixes)


def _fetch(repository: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ImportError(
            f"The weights {repository!r} are fetched from Hugging Face with huggingface-hub: "
            'pip install "lrpjax[hub]".'
        ) from error
    try:
        return Path(hf_hub_download(repository, FILE_NAME))
    except (OSError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0].partition(". ")[0].rstrip(".")
        raise OSError(
            f"{FILE_NAME} of {repository!r} cannot be fetched from Hugging Face ({reason}): check "
            "the name and the connection, or pass the path of a file."
        ) from error


def _promised_digest(path: Path) -> str:
    """The sha256, or its beginning, that the file's name holds; "" if it holds none.

    Hugging Face's cache links to a blob whose name is its sha256; torchvision puts the first
    eight digits into the name.
    """
    if re.fullmatch(r"[0-9a-f]{64}", path.resolve().name):
        return path.resolve().name
    named = re.fullmatch(r"(?:vgg|resnet)\d+-([0-9a-f]{8})\.pth", path.name)
    return named[1] if named else ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
