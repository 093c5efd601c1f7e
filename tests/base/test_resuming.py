"""A folder of pieces says what they are of, and goes with nothing else."""

import json
import shutil

import pytest

from lrpjax._base.resuming import SETTINGS, kept, remove


def begun(folder, settings, **options):
    """A run that writes one piece."""
    with kept(folder, settings, what="a test", pieces=["piece-*"], **options) as found:
        found.write("piece-1", "1")
    return found


A, B = {"draws": 1, "of": {"model": "0" * 16}}, {"draws": 2, "of": {"model": "1" * 16}}


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_the_same_settings_go_on(tmp_path):
    begun(tmp_path, A)
    with kept(tmp_path, dict(reversed(A.items())), what="a test", pieces=["piece-*"]):
        assert (tmp_path / "piece-1").read_text() == "1"


def test_others_are_refused_with_what_differs(tmp_path):
    begun(tmp_path, A)
    with pytest.raises(ValueError) as raised:
        begun(tmp_path, B, overwrite=False)
    assert str(raised.value) == (
        f"The folder {str(tmp_path)!r} holds a test with other settings (draws: 1, now 2; of "
        "model: another): give another folder, or remove this one (overwrite=True, --overwrite)."
    )
    assert json.loads((tmp_path / SETTINGS).read_text()) == A


def test_overwriting_removes_the_pieces_of_another_and_no_other_files(tmp_path):
    begun(tmp_path, A)
    (tmp_path / "notes.txt").touch()
    with kept(tmp_path, B, what="a test", pieces=["piece-*"], overwrite=True):
        assert names(tmp_path) == [".lrpjax.lock", "notes.txt", SETTINGS]
        assert json.loads((tmp_path / SETTINGS).read_text()) == B


def test_overwriting_the_same_goes_on(tmp_path):
    begun(tmp_path, A)
    with kept(tmp_path, A, what="a test", pieces=["piece-*"], overwrite=True):
        assert (tmp_path / "piece-1").exists()


@pytest.mark.parametrize("damage", ["{", "[]", "\xff"])
def test_damaged_settings_are_refused_and_can_be_overwritten(tmp_path, damage):
    begun(tmp_path, A)
    (tmp_path / SETTINGS).write_bytes(damage.encode("latin1"))
    with pytest.raises(ValueError, match="is damaged, so that nobody knows"):
        begun(tmp_path, A)
    begun(tmp_path, A, overwrite=True)


def test_pieces_without_settings_are_refused(tmp_path):
    (tmp_path / "piece-7").touch()
    with pytest.raises(ValueError, match="has pieces of a test, but no settings"):
        begun(tmp_path, A)


def test_a_folder_that_vanishes_is_one_sentence_and_is_not_made_again(tmp_path):
    folder = tmp_path / "run"
    with kept(folder, A, what="a test", pieces=["piece-*"]) as found:
        shutil.rmtree(folder)
        with pytest.raises(FileNotFoundError, match="was removed while it ran, and nothing"):
            found.write("piece-1", "1")
    assert not folder.exists()


def test_a_piece_that_cannot_be_written_says_what_is_kept(tmp_path):
    with kept(tmp_path, A, what="a test", pieces=["piece-*"]) as found:
        (tmp_path / "piece-1").mkdir()
        with pytest.raises(OSError) as raised:
            found.write("piece-1", "1")
    said = str(raised.value)
    assert "piece-1' cannot be written (" in said and "\n" not in said
    assert said.endswith(f"is kept in {str(tmp_path)!r}, and the same call goes on from there.")


def test_a_finished_run_is_removed_so_that_it_may_be_interrupted(tmp_path, monkeypatch):
    """What says whose pieces they are is there as long as there are any."""
    folder = tmp_path / "run"
    begun(folder, A)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    remove(folder)
    assert names(folder) == [SETTINGS]
