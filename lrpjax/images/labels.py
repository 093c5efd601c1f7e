"""The classes of images, from the folders they lie in or from a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

FOLDERS = "folders"
_COLUMNS = ("image", "label")


def read_labels(labels: str, names: Sequence[str], skipped: Sequence[str] = ()) -> list[str]:
    """The label of each image, as it is written.

    labels: "folders", for the first folder in each name, or the path of a CSV file whose first line
    is `image,label` (other columns may stand between), with a line for each name. skipped: names
    of images that were not read, which the file may have all the same.
    Raises FileNotFoundError, or ValueError that names what is missing, too much or said twice.
    """
    if labels == FOLDERS:
        return [_folder(name) for name in names]
    given, names = _table(Path(labels)), list(names)
    if missing := [name for name in names if name not in given]:
        raise ValueError(f"{labels!r} has no label for {_some(missing)}.")
    if unknown := [name for name in given if name not in names and not _ends(skipped, name)]:
        raise ValueError(
            f"{labels!r} has a label for {_some(unknown)}, but no such image was found; the first "
            f"one found is {names[0]}."
        )
    return [given[name] for name in names]


def _ends(paths: Sequence[str], name: str) -> bool:
    return any(f"/{path}".endswith(f"/{name}") for path in paths)


def _folder(name: str) -> str:
    folder, slash, _ = name.partition("/")
    if not slash:
        raise ValueError(
            f"The image {name} lies in no subfolder, which would be its label: give the folder "
            "above the classes with --images."
        )
    return folder


def _table(file: Path) -> dict[str, str]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream, strict=True)
            if lacking := [name for name in _COLUMNS if name not in (rows.fieldnames or ())]:
                raise ValueError(f"its first line has no column {lacking[0]!r}")
            given: dict[str, str] = {}
            for row in rows:
                name, label = (row[column] for column in _COLUMNS)
                if not label:
                    raise ValueError(f"line {rows.line_num} has no label")
                if given.setdefault(name, label) != label:
                    raise ValueError(f"{name} has the labels {given[name]} and {label}")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"There is no file of labels at {str(file)!r}: check the path, or say folders."
        ) from error
    except (ValueError, OSError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"The labels in {str(file)!r} cannot be read: {reason}.") from error
    return given


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{rest}"
