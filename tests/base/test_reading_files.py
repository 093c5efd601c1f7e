"""Files from outside: what is no file is not opened, and every failure is one sentence."""

import os
import socket
import time
from pathlib import Path

import pytest

from lrpjax._base.reading import LONGEST, Unreadable, reading, reason


def failing(error, path, kind):
    """The sentence that an error inside becomes."""
    with pytest.raises(kind) as caught, reading(path, "weight file"):
        raise error
    assert caught.type is kind
    message = str(caught.value)
    assert str(path) in message and message.endswith(".")
    assert "\n" not in message and ". " not in message and message.isprintable(), message
    return message


@pytest.fixture
def path(tmp_path):
    (tmp_path / "net.pth").write_bytes(b"numbers")
    return tmp_path / "net.pth"


ERRORS = {
    "ours": (Unreadable("its end is missing"), "(its end is missing)"),
    "of another library": (KeyError("w"), "(KeyError: 'w')"),
    "several sentences": (ValueError("One.\nTwo. Three."), "(ValueError: One; Two; Three)"),
    "without words": (EOFError(), "(EOFError)"),
    "memory": (MemoryError(), "(it asks for more memory than there is)"),
    "depth": (RecursionError("maximum"), "(it is nested too deeply)"),
    "a terminal's colours": (ValueError("\x1b[31mred"), r"ValueError: \x1b[31mred"),
    "half a character": (ValueError("\ud800"), r"ValueError: \ud800"),
    "no number of the system": (OSError("cannot decode"), "OSError: cannot decode"),
}


@pytest.mark.parametrize(("error", "words"), ERRORS.values(), ids=ERRORS)
def test_whatever_fails_is_one_sentence(error, words, path):
    message = failing(error, path, ValueError)
    assert message.startswith("The weight file '") and words in message


def test_a_message_of_any_length_is_cut():
    begin = time.process_time()
    assert len(reason(ValueError("x" * 10**8))) < LONGEST + 20
    assert time.process_time() - begin < 1


def test_what_the_system_refuses_keeps_its_kind(path):
    message = failing(PermissionError(13, "Permission denied"), path, PermissionError)
    assert "cannot be read (Permission denied)" in message


def test_a_missing_package_is_no_fault_of_the_file(path):
    with pytest.raises(ImportError, match="pip install"), reading(path, "weight file"):
        raise ImportError("pip install h5py")


def test_an_interruption_passes(path):
    with pytest.raises(KeyboardInterrupt), reading(path, "weight file"):
        raise KeyboardInterrupt


def test_what_is_no_file_is_never_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("link").symlink_to("pipe")
    Path("folder").mkdir()
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket")
        for name, kind in (
            ("pipe", "a pipe"),
            ("link", "a pipe"),
            ("folder", "a folder"),
            ("socket", "a socket"),
            ("/dev/zero", "a device"),
        ):
            words = f"it is {kind}, no file"
            with pytest.raises(ValueError, match=words), reading(name, "weight file"):
                raise AssertionError("opened")


def test_a_missing_file_is_named(tmp_path):
    words = r"There is no weight file '.*gone.pth': check"
    path = tmp_path / "gone.pth"
    with pytest.raises(FileNotFoundError, match=words), reading(path, "weight file"):
        raise AssertionError("opened")
