"""Every command explains itself: the help names each of its options."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.main import get_command

import lrpjax
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


def test_images_are_one_option_of_all_commands_that_read_them():
    options = {name: p for name, c in COMMANDS.items() for p in c.params if "--images" in p.opts}
    assert set(options) == set(COMMANDS) - {"methods", "simulate", "train"}
    said = {p.help.partition("Default: ")[0] for p in options.values()}
    assert len(said) == 1 and all(p.multiple for p in options.values())


def test_methods_are_one_option_of_all_commands_that_take_several():
    options = {name: p for name, c in COMMANDS.items() for p in c.params if "--method" in p.opts}
    assert set(options) == {"csc", "audit", "sanity", "spectrum", "attribute"}
    said = {p.help.partition("Default: ")[0] for p in options.values()}
    assert len(said) == 1 and all(p.multiple for p in options.values())


def test_the_version_is_that_of_the_package(command_line):
    assert command_line("--version") == (0, f"lrpjax {lrpjax.__version__}\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["csc", "--help"], ["cscc"]])
def test_what_needs_no_model_loads_no_jax(arguments):
    """In a process of its own, as `python -m lrpjax`."""
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['lrpjax', *{arguments}]\n"
        "try:\n    runpy.run_module('lrpjax', run_name='__main__')\n"
        "except SystemExit as stop:\n    code = stop.code or 0\n"
        "assert 'jax' not in sys.modules and 'numpy' not in sys.modules\n"
        "sys.exit(code)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == (2 if arguments == ["cscc"] else 0), ran.stderr
    assert ("Did you mean 'csc'?" in ran.stderr) == (arguments == ["cscc"])
