"""What is seen of long work: a bar at a terminal, and lines elsewhere; of short work nothing."""

from io import StringIO

import pytest
from rich.console import Console

from lrpjax._base import jobs, progress


@pytest.fixture
def screen(monkeypatch):
    """What is written to a terminal."""
    console = Console(file=StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(progress, "get_console", lambda: console)
    return console.file


@pytest.fixture
def slow(monkeypatch):
    """A clock on which 20 seconds pass whenever it is looked at."""
    seen = iter(range(0, 10_000, 20))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(seen)))


def test_a_bar_appears_at_a_terminal_where_it_takes_long(screen, monkeypatch, capsys):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    assert list(progress.track(range(3), "the work")) == [0, 1, 2]
    assert "the work" in screen.getvalue() and capsys.readouterr() == ("", "")


def test_nothing_is_seen_of_short_work(screen, capsys):
    assert list(progress.track(range(3), "the work")) == [0, 1, 2]
    assert screen.getvalue() == "" and capsys.readouterr() == ("", "")


def test_a_line_every_half_minute_where_there_is_no_terminal(slow, capsys):
    assert list(progress.track("abcdef", "the work")) == list("abcdef")
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) > 1
    assert all(line.startswith("the work: ") and " of 6, " in line for line in lines)
    assert not any("6 of 6" in line for line in lines)  # it is done


def test_the_number_of_steps_may_be_said(slow, capsys):
    assert list(progress.track(iter("abcd"), "the work", 9)) == list("abcd")
    assert " of 9, " in capsys.readouterr().err


def test_one_of_several_pieces_of_work_on_threads_is_silent(slow, capsys):
    piece = lambda n: list(progress.track(range(n), "a piece"))
    assert list(jobs.each(piece, [2, 3])) == [[0, 1], [0, 1, 2]]
    assert capsys.readouterr() == ("", "")


def test_jobs_tell_of_themselves_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    kept = {}
    jobs.run(["a", "b", "c"], str.upper, kept.__setitem__, label="job {}".format)
    assert kept == {"a": "A", "b": "B", "c": "C"}
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1].split(",")[0] for line in lines] == ["1 of 3", "2 of 3"]
