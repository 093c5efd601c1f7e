"""The README's python runs as written, top to bottom, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import pytest
from typer.main import get_command

from lrpjax.cli import app
from lrpjax.methods.lookup import TABLE
from lrpjax.rules import coverage, register

README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.mark.slow
def test_the_snippets_of_the_readme_run_in_their_order(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # they write a report
    snippets = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(snippets) >= 3
    try:
        with jax.enable_x64(False):  # as whoever copies them
            exec(compile("\n".join(snippets), "README.md", "exec"), {"__name__": "readme"})
    finally:
        register("sin", None)
    assert "epsilon" in capsys.readouterr().out


def test_the_commands_of_the_readme_exist():
    commands = set(re.findall(r"^lrpjax (\w+)", README, re.M))
    assert commands and commands <= set(get_command(app).commands)


def test_the_pictures_of_the_readme_exist():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert pictures and all((Path(__file__).parents[2] / p).exists() for p in pictures)


def test_the_table_of_methods_is_the_one_in_the_code():
    rows = [line.split(" | ") for line in README.splitlines() if line.startswith("| ")]
    shown = {row[0][2:]: row[1:5] for row in rows if row[0][2:] in TABLE}
    for name, e in TABLE.items():
        formula = e.formula.replace("|", "\\|")
        assert shown[name] == [formula, e.source, e.conserves, e.converges]


def test_the_table_of_what_is_covered_is_the_one_in_the_code():
    lines = README.splitlines()
    for row in coverage():
        assert f"| {row['kind']} | {row['primitives']} | {row['lrp']} |" in lines
