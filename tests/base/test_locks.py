"""One process at a time in a folder, however the one before it ended."""

import errno
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from filelock import UnixFileLock

from lrpjax._base.files import writing
from lrpjax._base.locks import LOCK, held

HOLDER = """
import sys, time
from lrpjax._base.files import writing
from lrpjax._base.locks import held
with held(sys.argv[1]), writing(sys.argv[1] + "/half") as stream:
    stream.write(b"half")
    stream.flush()
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder and is in the middle of a file."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_second_process_is_refused_and_told_who_the_first_is(holder, tmp_path):
    with pytest.raises(BlockingIOError) as raised, held(tmp_path):
        pass
    said = str(raised.value)
    host = re.escape(os.uname().nodename)
    assert re.search(rf"process {holder.pid} on {host} since 20\d\d-\d\d-\d\d \d\d:\d\d", said)
    assert str(tmp_path) in said and "\n" not in said and said.endswith("another folder.")


def test_what_the_first_is_writing_stays(holder, tmp_path):
    before = names(tmp_path)
    assert before[0].endswith(".part") and before[1:] == [LOCK]
    with held(tmp_path, "another.lock"):
        assert set(before) < set(names(tmp_path))
    assert names(tmp_path) == before


def test_a_killed_process_leaves_no_lock_and_its_half_file_is_removed(holder, tmp_path):
    (tmp_path / ".0123.part").touch()  # not a name of ours
    (tmp_path / "file.part").touch()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert len(names(tmp_path)) == 4
    with held(tmp_path):
        assert names(tmp_path) == [".0123.part", LOCK, "file.part"]
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert names(tmp_path) == [".0123.part", "file.part"]


def test_it_is_free_again_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), held(tmp_path / "new"):
            raise ZeroDivisionError
    assert names(tmp_path / "new") == []


def test_many_processes_that_ask_at_once_come_one_after_the_other(tmp_path):
    script = """
import sys, time
from pathlib import Path
from lrpjax._base.locks import held
folder, done = Path(sys.argv[1]), 0
while done < 20:
    try:
        with held(folder / "shared"):
            mark = folder / "inside"
            mark.touch(exist_ok=False)
            time.sleep(0.001)
            mark.unlink()
            done += 1
    except BlockingIOError:
        time.sleep(0.0005)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [run.communicate()[1] for run in runs] == ["", "", ""]
    assert names(tmp_path / "shared") == []


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def none(self, *_, **__):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(UnixFileLock, "acquire", none)
    said = pytest.warns(UserWarning, match="has no locks: see to it")
    with said, held(tmp_path), writing(tmp_path / "file") as stream:
        stream.write(b"1")
    assert (tmp_path / "file").read_bytes() == b"1"


@pytest.mark.parametrize("below", ["", "x"])
def test_a_file_in_the_place_of_the_folder_is_one_sentence(tmp_path, below):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OSError) as raised, held(tmp_path / "file" / below):
        pass
    said = str(raised.value)
    assert said.startswith(f"The folder {str(tmp_path / 'file' / below)!r} cannot be written (")
    assert "\n" not in said and (tmp_path / "file").read_text() == "kept"


def test_an_old_lock_of_a_killed_process_is_no_lock(tmp_path):
    (tmp_path / LOCK).write_text("process 1 on elsewhere since 2001-01-01 00:00:00+00:00")
    begin = time.monotonic()
    with held(tmp_path):
        assert time.monotonic() - begin < 5
