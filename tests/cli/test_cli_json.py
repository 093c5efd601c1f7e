"""`--json -`: standard output is one JSON document and nothing else, whatever the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import rich
from typer.main import get_command

from lrpjax import cli
from lrpjax._base import jobs

MODEL = """
import jax, jax.numpy as jnp

print("a module that talks")

def apply(weights, x):
    print("a model that talks")
    h = jax.nn.relu(x.reshape(len(x), -1) @ weights["first"])
    return h @ weights["second"]

def net():
    numbers = jnp.arange(192 * 4.0)
    first, second = jnp.sin(numbers).reshape(192, 4), jnp.cos(numbers[:12]).reshape(4, 3)
    return jax.tree_util.Partial(apply, {"first": first, "second": second})

def exponential():
    return lambda x: jnp.exp(net()(x))
"""
ONE = ["--method", "gradient"]
FEW = [*ONE, "--vectors", "2"]
COMMANDS = {  # arguments, and what is told of the result
    "csc": (FEW, "median |cosine|"),
    "audit": (ONE, "verdict"),
    "sanity": ([*ONE, "--similarity", "spearman"], "another class"),
    "spectrum": (FEW, "certificate"),
    "attribute": (ONE, "sum of each method's map"),
    "plan": (["lrp-epsilon", "--check"], "largest relative difference"),
    "methods": ([], "Bach et al. 2015"),
    "simulate": (["--repetitions", "1"], "permutation"),
    "train": (["--data", "images.npz", "--epochs", "2"], "epoch 2"),
}

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def run(tmp_path, monkeypatch, command_line):
    """Runs `lrpjax ...` in an empty folder with talkative.py; returns (exit, out, err)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "talkative", raising=False)
    monkeypatch.setattr(cli.attribute, "DPI", 40)
    (tmp_path / "talkative.py").write_text(MODEL)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels)

    def call(name, *arguments, model="net"):
        given = ["--model", f"talkative:{model}", "--images", "images.npz"]
        takes = name not in ("methods", "simulate", "train")
        return command_line(name, *arguments, *(given if takes else []))

    return call


@pytest.fixture
def no_training(monkeypatch):
    """Epochs without work, each with an accuracy of a half."""
    from lrpjax.models import datasets, training

    monkeypatch.setattr(datasets, "read_cifar10", lambda *_, **__: (None, None))
    finished = []

    def train(*_, epochs, **__):
        finished.clear()
        for epoch in range(epochs):
            finished.append({"epoch": epoch + 1, "test_accuracy": 0.5})
            yield epoch, None

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(training, "history", lambda _: list(finished))


def test_every_command_that_writes_json_is_tested():
    commands = get_command(cli.app).commands
    assert set(COMMANDS) == {
        name for name, c in commands.items() if any("--json" in p.opts for p in c.params)
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_standard_output_is_the_json_and_nothing_else(run, name, no_training, tmp_path):
    arguments, told = COMMANDS[name]
    code, out, err = run(name, *arguments, "--json", "-")
    assert code == 0, err
    content = json.loads(out)
    assert {"settings", "rows"} <= set(content) and content["rows"]
    assert told in err and not (tmp_path / "-").exists()
    code, said, err = run(name, *arguments, "--json", "r.json")
    assert code == 0 and told in said and told not in err
    again = json.loads((tmp_path / "r.json").read_text())
    for one in (content, again):
        one["settings"].pop("command", None)  # it names the file
    assert again == content


def test_a_method_that_is_left_out_is_told_elsewhere(run):
    chosen = ["--method", "lrp-z", *FEW]
    code, out, err = run("csc", *chosen, "--json", "-", model="exponential")
    assert code == 0 and "lrp-z left out" in err
    assert {row["method"] for row in json.loads(out)["rows"]} == {"gradient"}


@pytest.mark.parametrize("also", [["--start", "dense_9"], ["--nothing"]], ids=["late", "early"])
def test_after_a_mistake_nothing_is_on_standard_output(run, also):
    code, out, err = run("csc", "--json", "-", *ONE, *also)
    assert code in (1, 2) and not out and also[-1] in err
    console = rich.get_console()
    assert not console.stderr and console.file is sys.stdout
    assert run("methods", "--json", "m.json")[1].startswith("method")


def test_after_ctrl_c_nothing_is_on_standard_output(run, monkeypatch):
    from lrpjax import convergence

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(convergence, "csc", interrupted)
    monkeypatch.setattr(jobs, "THREADS", 1)
    code, out, err = run("csc", *ONE, "--json", "-")
    assert code == 130 and not out and "Interrupted: 0 of 1" in err


def test_another_program_reads_it_through_a_pipe(tmp_path):
    """Colours asked for by the environment do not get in between."""
    line = f"{sys.executable} -m lrpjax methods --json - | {sys.executable} -m json.tool"
    environment = {"FORCE_COLOR": "1"}
    ran = subprocess.run(
        line, shell=True, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert ran.returncode == 0 and len(json.loads(ran.stdout)["rows"]) > 15
