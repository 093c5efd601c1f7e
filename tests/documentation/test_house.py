"""The map of the house is the house: its rooms, their order, and what imports what."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

import lrpjax

PACKAGE = Path(lrpjax.__file__).parent
ROOT = Path(__file__).parents[2]
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = re.findall(r"^    (\w+) +\S", lrpjax.__doc__, re.MULTILINE)


def order():
    """The rooms as the contract of the imports has them, from above; some side by side."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    (contract,) = tools["importlinter"]["contracts"]
    return [level.split(" | ") for level in contract["layers"]]


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """The rooms that a file names in its imports, wherever they stand in it."""
    inside = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            here = list(inside[: len(inside) + 1 - node.level])
            module = here + (node.module.split(".") if node.module else [])
            yield from [module[0]] if module else [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "lrpjax":
            yield node.module.split(".")[1]


def test_the_map_names_every_room_in_the_order_of_the_contract():
    flat = [name for level in order() for name in level]
    there = {room(path) for path in FILES} - {"__init__"}
    assert set(flat) == there
    assert [name for name in flat if name != "__main__"] == ROOMS
    written = (ROOT / "CONTRIBUTING.md").read_text().split("Imports go downwards")[1]
    assert re.findall(r"`(\w+)`", written)[: len(ROOMS)] == ROOMS


@pytest.mark.parametrize("path", [*FILES, *PACKAGE.rglob("*.pyi")], ids=lambda p: p.name)
def test_a_file_imports_what_lies_below_it(path):
    """Also in functions, and in the stubs of what is loaded when it is used."""
    if path.parent == PACKAGE and path.stem == "__init__":
        return  # the face, which shows all rooms
    height = {name: -i for i, level in enumerate(order()) for name in level}
    own = room(path)
    for name in imported(path):
        if name != "__version__":
            assert name == own or height[name] < height[own], f"{own} imports {name}"


def test_nothing_reaches_upwards_another_way():
    """By a string, or for the types alone: but for one place, which says what it loads."""
    height = {name: -i for i, level in enumerate(order()) for name in level}
    for path in FILES:
        text = path.read_text()
        assert "TYPE_CHECKING" not in text, path
        if path != PACKAGE / "_base" / "upwards.py":
            named = re.findall(r"""["']lrpjax\.(\w+)[.\w]*["']""", text)
            assert all(height[name] <= height[room(path)] for name in named), path
            assert not re.search(r"""import_module\(f?["']\.""", text), path


def test_a_file_has_one_concept():
    assert [p.name for p in FILES if len(p.read_text().splitlines()) > 350] == []


def test_two_places_ask_what_a_method_is():
    """All else asks it to do its part."""
    kinds = "Explainer|Method|RuleChain|Estimator|InformationBottleneck|SmoothGrad|Own|Contrastive"
    asks = re.compile(rf"isinstance\([^)]*\b({kinds})\b|(hasattr|getattr|type)\((self\.)?method\b")
    found = [line for path in FILES for line in path.read_text().splitlines() if asks.search(line)]
    assert len(found) <= 2, found
