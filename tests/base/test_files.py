"""Files are there whole or not at all, where and as their owner wants them."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lrpjax._base.files import remove_partial, write_whole, writing


def names(folder):
    return sorted(file.name for file in folder.rglob("*"))


def permissions(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("content", ["ä 1\n", b"\x00\xff"], ids=["text", "bytes"])
def test_what_is_written_is_read_again(tmp_path, content):
    for text in ("something else, and longer", content):
        write_whole(tmp_path / "file", text)
    assert (tmp_path / "file").read_bytes() == (content if content[0] == 0 else b"\xc3\xa4 1\n")
    assert names(tmp_path) == ["file"]


def test_missing_folders_are_made(tmp_path):
    write_whole(tmp_path / "a" / "b" / "file", "1")
    assert names(tmp_path) == ["a", "b", "file"]


def test_a_name_may_be_as_long_as_the_system_lets_it_be(tmp_path):
    write_whole(tmp_path / ("n" * 255), "1")
    with pytest.raises(OSError, match="cannot be written"):
        write_whole(tmp_path / ("n" * 256), "1")
    assert names(tmp_path) == ["n" * 255]


@pytest.mark.parametrize("there", [True, False], ids=["of a file", "of nothing yet"])
def test_a_link_stays_and_what_it_points_to_is_written(tmp_path, there):
    (tmp_path / "far").mkdir()
    target = tmp_path / "far" / "target"
    if there:
        target.write_text("old")
    (tmp_path / "second").symlink_to(Path("far") / "target")
    (tmp_path / "first").symlink_to("second")
    write_whole(tmp_path / "first", "new")
    assert target.read_text() == "new" and not target.is_symlink()
    assert os.readlink(tmp_path / "first") == "second"
    assert os.readlink(tmp_path / "second") == "far/target"
    assert names(tmp_path) == ["far", "first", "second", "target"]


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755], ids=oct)
def test_a_file_keeps_its_permissions(tmp_path, mode):
    (tmp_path / "file").write_text("old")
    (tmp_path / "file").chmod(mode)
    write_whole(tmp_path / "file", "new")
    assert permissions(tmp_path / "file") == mode and (tmp_path / "file").read_text() == "new"


def test_a_new_file_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "other").touch()
    write_whole(tmp_path / "file", "1")
    assert permissions(tmp_path / "file") == permissions(tmp_path / "other")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("old", ["old", None], ids=["over a file", "anew"])
def test_an_error_half_way_leaves_what_was_there(tmp_path, error, old):
    if old:
        (tmp_path / "file").write_text(old)
    with pytest.raises(error), writing(tmp_path / "file") as stream:
        stream.write(b"half")
        stream.flush()
        assert len(names(tmp_path)) == (2 if old else 1)
        raise error
    assert names(tmp_path) == (["file"] if old else [])
    assert not old or (tmp_path / "file").read_text() == old


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"file' cannot be written \(No space left on device\)"):
        write_whole(tmp_path / "file", "new")
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "old"


def test_the_content_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    seen, real = [], os.fsync

    def fsync(descriptor):
        seen.append((os.fstat(descriptor).st_size, (tmp_path / "file").exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(tmp_path / "file", "123")
    assert seen == [(3, False)]


def test_a_read_only_file_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")
    (tmp_path / "file").chmod(0o444)
    if os.access(tmp_path / "file", os.W_OK):  # for root all files are writable
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "file")
    with pytest.raises(PermissionError, match=r"file' cannot be written \(it is read-only\)"):
        write_whole(tmp_path / "file", "new")
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "old"


def test_what_cannot_be_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "circle").symlink_to("circle")
    for name, kind in {
        ".": IsADirectoryError,
        "file/x": NotADirectoryError,
        "circle": OSError,
    }.items():
        with pytest.raises(kind) as raised:
            write_whole(tmp_path / name, "1")
        said = str(raised.value)
        assert said.startswith(f"The file {str(tmp_path / name)!r} cannot be written (")
        assert said.endswith("): choose another, or make it writable.") and "\n" not in said
    assert names(tmp_path) == ["circle", "file"] and (tmp_path / "circle").is_symlink()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's devices")
def test_a_device_is_written_to_and_stays(tmp_path):
    write_whole("/dev/null", "1")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(OSError, match="'/dev/full' cannot be written"):
        write_whole("/dev/full", "1")
    ours, theirs = os.pipe()
    write_whole(f"/dev/fd/{theirs}", "1")
    os.close(theirs)
    with open(ours) as stream:
        assert stream.read() == "1"


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "make room there, or choose another place"),
        (errno.EDQUOT, "make room there, or choose another place"),
        (errno.EMFILE, "raise the limit of open files (ulimit -n)"),
        (errno.EIO, "choose another, or make it writable"),
    ],
    ids=errno.errorcode.get,
)
def test_the_sentence_says_what_to_do_and_what_is_kept(tmp_path, monkeypatch, number, advice):
    def fails(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    file = tmp_path / "file"
    for kept in ("", "; what it held is kept"):
        with pytest.raises(OSError) as raised:
            write_whole(file, "new")
        said = f"The file {str(file)!r} cannot be written ({os.strerror(number)}): {advice}{kept}."
        assert str(raised.value) == said
        file.write_text("old")


def test_half_written_files_are_removed_but_those_of_others_and_those_in_work(tmp_path):
    left = tmp_path / ".0123456789abcdef.part"
    others = [".0123456789abcde.part", "0123456789abcdef.part", ".0123456789ABCDEF.part"]
    for name in (left.name, *others):
        (tmp_path / name).touch()
    with writing(tmp_path / "file") as stream:
        remove_partial(tmp_path)
        stream.write(b"whole")
    assert names(tmp_path) == sorted(["file", *others])
    assert (tmp_path / "file").read_bytes() == b"whole"
    remove_partial(tmp_path / "nowhere")


ASCII = """
import locale, sys
from lrpjax._base.files import write_whole
from lrpjax._base.results import Results
assert locale.getpreferredencoding(False).lower() not in ("utf-8", "utf8")
write_whole(sys.argv[1], "\\xe4 \\u2211")
Results({"name": "\\xe4 \\u2211"}, []).save(sys.argv[2])
assert Results.load(sys.argv[2]).settings == {"name": "\\xe4 \\u2211"}
"""


def test_text_is_utf_8_whatever_the_locale(tmp_path):
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", ASCII, str(tmp_path / "text"), str(tmp_path / "rows.json")]
    ran = subprocess.run(command, env=os.environ | environment, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "text").read_bytes() == "ä ∑".encode()
