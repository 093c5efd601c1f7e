"""--model package.module:function: what a factory may return, and what is said where it cannot."""

from __future__ import annotations

import functools
import json
import re
import sys
from pathlib import Path
from textwrap import indent

import jax
import numpy as np
import pytest

from lrpjax import cli
from lrpjax.cli.factories import ABOUT, EXAMPLE, stated_by

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def run(tmp_path, monkeypatch, command_line):
    """Runs `lrpjax ...` in a folder with mine.py of this text; (exit, out, err)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.attribute, "DPI", 40)

    def call(text, *arguments):
        for name in ("mine", "helper"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / "mine.py").write_text(text)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        return command_line(*arguments)

    return call


def words(text):
    return " ".join(re.sub(r"[`│]", "", text).split())


def test_the_example_of_the_help_runs(run, monkeypatch):
    rng = np.random.default_rng(0)
    weights = {"first": rng.normal(size=(784, 5)) / 28, "last": rng.normal(size=(5, 2))}
    np.savez("weights.npz", **weights)
    pixels = rng.integers(0, 256, (3, 28, 28), np.uint8)
    np.savez("images.npz", images=pixels)
    chosen = ["--method", "gradient", "--method", "deep-taylor", "--target", "dog"]
    code, out, err = run(
        EXAMPLE, "attribute", "images.npz", "--model", "mine:make", *chosen, "--json", "r.json"
    )
    assert code == 0, err
    assert "3 images -> float32[3, 28, 28, 1] in 0..1, from images.npz" in out
    assert "left out" not in out  # deep-taylor had the input_range
    with np.load("lrpjax-attribute/maps.npz") as arrays:
        hidden = np.maximum(pixels.reshape(3, -1) / 255 @ weights["first"], 0)
        np.testing.assert_allclose(arrays["logits"], hidden @ weights["last"], atol=1e-4)
        assert arrays["targets"].tolist() == [1, 1, 1]
    rows = json.loads(Path("r.json").read_text())["rows"]
    assert {row["target_name"] for row in rows} == {"dog"}


def test_the_example_stands_once_and_is_shown_twice(command_line, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    code, out, _ = command_line("--help")
    assert code == 0
    readme = (ROOT / "README.md").read_text()
    assert f"```python\n{EXAMPLE}```" in readme and words(ABOUT) in words(readme)
    assert words(ABOUT) in words(out)
    assert indent(EXAMPLE, "   ") in out
    assert len([line for line in EXAMPLE.splitlines() if line]) <= 12


@pytest.mark.parametrize("partial", [functools.partial, jax.tree_util.Partial])
def test_a_partial_has_attributes_as_any_model(partial):
    model = partial(lambda weights, x: x @ weights, np.ones((3, 2)))
    model.image_size, model.classes = [4, np.int64(5), 1], np.array(["a", "b"])
    found = stated_by(model)
    assert (found.size, found.channels, found.classes) == ((4, 5), 1, ["a", "b"])
    assert stated_by(lambda x: x).size is None


WRONG = {
    "image_size": [224, (4,), (4, 5, 6, 7), (0, 4), ("4", "5"), (4.0, 5.0)],
    "classes": ["cat", {"cat": 0}, 3],
    "preprocess": ["torch", 255],
    "input_range": [1, (0, 1, 2), (1, 0), ((0, 0), (1, -1)), ("a", "b")],
}


@pytest.mark.parametrize("name", WRONG)
def test_an_attribute_that_is_none_is_told(name):
    for value in WRONG[name]:
        model = functools.partial(lambda x: x)
        setattr(model, name, value)
        with pytest.raises(ValueError, match=rf"The model's `{name}` must be .*, got "):
            stated_by(model)


NET = "import jax.numpy as jnp\nnet = lambda x: x.reshape(len(x), -1)[:, :3]\n"
FACTORIES = {  # the module, what --model names in it, what is said, and the user's lines
    "needs an argument": ("def make(key):\n    return key\n", "make", "it needs key", []),
    "is the model": (
        "class Net:\n    def __call__(self, x):\n        return x\nmodel = Net()\n",
        "model",
        "it needs x: --model takes one that returns the model, such as `def make(): return model`",
        [],
    ),
    "is a value": ("model = {'a': 1}\n", "model", "but a dict: --model takes one", []),
    "returns None": ("def make():\n    pass\n", "make", "returned None: it must return", []),
    "returns a number": ("def make():\n    return 3\n", "make", "returned a int: it must", []),
    "raises": (
        "def inner():\n    return {}['weights']\n\ndef make():\n    return inner()\n",
        "make",
        "The factory mine:make failed: KeyError: 'weights'",
        [(5, "make"), (2, "inner")],
    ),
    "raises in a library": (
        "import json\ndef make():\n    return json.loads('{')\n",
        "make",
        "JSONDecodeError",
        [(3, "make")],
    ),
    "raises in ours": (
        "import lrpjax\ndef make():\n    return lrpjax.models.cifar10('gone')\n",
        "make",
        "gone",
        [(3, "make")],
    ),
    "raises lines": (
        "def make():\n    raise ValueError('a\\nb')\n",
        "make",
        "failed: ValueError: a\n",
        [(2, "make")],
    ),
    "ends the program": (
        "import sys\nsys.exit(2)\n",
        "make",
        "'mine' cannot be imported: SystemExit: 2",
        [(2, "<module>")],
    ),
    "does not import": (
        "import nothing_here\n",
        "make",
        "'mine' cannot be imported: ModuleNotFoundError: No module named 'nothing_here'",
        [(1, "<module>")],
    ),
    "syntax": (
        "x = 1\ndef make(:\n",
        "make",
        "'mine' cannot be imported: SyntaxError: ",
        [(2, "")],
    ),
    "no such function": ("x = 1\n", "make", "'mine' has no function 'make'", []),
    "no function": ("x = 1\n", "", "mine: is not package.module:function", []),
}


@pytest.mark.parametrize("kind", FACTORIES)
def test_a_factory_that_makes_no_model_is_one_sentence_and_the_users_lines(run, kind):
    text, function, said, frames = FACTORIES[kind]
    code, out, err = run(text, "plan", "gradient", "--model", f"mine:{function}")
    assert code == 1 and not out and said in err
    first, *rest = err.splitlines()
    assert first.startswith("lrpjax: ") and "Traceback" not in err
    found = re.findall(r'File ".*/(\w+\.py)", line (\d+)(?:, in (\S+))?', "\n".join(rest))
    assert found == [("mine.py", str(line), name) for line, name in frames]
    assert bool(rest) == bool(frames)


def test_a_module_that_is_nowhere(run):
    for name in ("gone", "json.gone", "mine.gone"):
        code, _, err = run(NET, "plan", "gradient", "--model", f"{name}:x")
        assert code == 1 and f"There is no module '{name}' for --model {name}:x: it is" in err
        assert len(err.splitlines()) == 1


PREPROCESS = {
    "raises": ("lambda levels: levels['red']", r"The model's `preprocess` failed: IndexError"),
    "returns none": ("lambda levels: None", r"`preprocess` makes None of 20 images"),
    "returns one": ("lambda levels: levels[0]", r"makes uint8\[32, 32, 3\] of 20 images"),
    "returns a number": ("lambda levels: 1.0", r"makes 1\.0 of 20 images"),
}


@pytest.mark.parametrize("kind", PREPROCESS)
def test_a_preprocess_that_fails_is_told(run, kind):
    code_text, said = PREPROCESS[kind]
    text = f"def make():\n    net = lambda x: x\n    net.preprocess = {code_text}\n    return net\n"
    code, _, err = run(text, "plan", "gradient", "--model", "mine:make")
    assert code == 1 and re.search(said, err) and "Traceback" not in err


def test_a_name_may_look_like_an_emoji(command_line):
    code, _, err = command_line("plan", "gradient", "--model", "gone:x")
    assert code == 1 and "for --model gone:x: it is looked for" in err
