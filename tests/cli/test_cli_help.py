"""Every command explains itself: the help names each of its options."""

from __future__ import annotations

import pytest
from typer.main import get_command

from lrpjax.cli import app

COMMANDS = get_command(app).commands


def test_the_help_names_every_command(command_line):
    code, out, err = command_line("--help")
    assert code == 0 and not err and len(COMMANDS) == 10
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_names_its_options(name, command_line, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # no option is cut short
    code, out, err = command_line(name, "--help")
    assert code == 0 and not err
    options = [o for p in COMMANDS[name].params for o in p.opts if o.startswith("--")]
    assert options and all(option in out for option in options)
