"""SIGKILL at any moment costs the piece in work, and nothing else."""

import pytest

from .rounds import COMMANDS, survive


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_killed_goes_on_and_ends_as_if_it_had_not_been(command, tmp_path):
    killed = survive(command, 20, 0, tmp_path)
    assert killed["on the way"] > 0
