"""The README's python runs as written, top to bottom, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from lrpjax.cli import app

README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.mark.slow
def test_snippets_run(capsys):
    snippets = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(snippets) >= 3
    exec(compile("\n".join(snippets), "README.md", "exec"), {"__name__": "readme"})
    assert "epsilon" in capsys.readouterr().out


def test_commands_exist():
    commands = set(re.findall(r"^lrpjax (\w+)", README, re.M))
    assert commands and commands <= set(get_command(app).commands)


def test_pictures_exist():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert pictures and all((Path(__file__).parent.parent / p).exists() for p in pictures)
