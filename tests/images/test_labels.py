"""The classes of images, by their folders and by a table."""

from __future__ import annotations

import pytest

from lrpjax.images import read_labels

NAMES = ["cat/1.png", "cat/deep/2.png", "dog/1.png"]


def table(tmp_path, text):
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    return str(tmp_path / "labels.csv")


def test_a_label_is_the_first_folder(tmp_path):
    assert read_labels("folders", NAMES) == ["cat", "cat", "dog"]
    with pytest.raises(ValueError, match=r"image a\.png lies in no subfolder"):
        read_labels("folders", ["cat/1.png", "a.png"])


@pytest.mark.parametrize(
    "text",
    [
        "image,label\ndog/1.png,2\ncat/1.png,0\ncat/deep/2.png,1\nbroken.png,9\n",
        '\ufefflabel,by,image\r\n2,me,dog/1.png\r\n0,me,"cat/1.png"\r\n1,me,cat/deep/2.png\r\n',
    ],
)
def test_a_table_names_each_image(tmp_path, text):
    assert read_labels(table(tmp_path, text), NAMES, ["broken.png"]) == ["0", "1", "2"]


ROWS = "image,label\ncat/1.png,0\ncat/deep/2.png,1\n"
WRONG = {
    "an image is missing": (ROWS, "no label for dog/1.png"),
    "one too many": (f"{ROWS}dog/1.png,1\ndog/2.png,1\n", "label for dog/2.png, but no such image"),
    "twice": (f"{ROWS}cat/1.png,1\n", "cat/1.png has the labels 0 and 1"),
    "empty": (f"{ROWS}dog/1.png,\n", "line 4 has no label"),
    "short": (f"{ROWS}dog/1.png\n", "line 4 has no label"),
    "no head": ("cat/1.png,0\n", "first line has no column 'image'"),
    "nothing": ("", "first line has no column 'image'"),
    "quotes": (f'{ROWS}"dog', "cannot be read"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_table_is_refused(tmp_path, kind):
    text, reason = WRONG[kind]
    with pytest.raises(ValueError, match=reason):
        read_labels(table(tmp_path, text), NAMES)


def test_a_table_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file of labels at .*gone\.csv"):
        read_labels(str(tmp_path / "gone.csv"), NAMES)
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"a\.csv.*cannot be read"):
        read_labels(str(tmp_path / "a.csv"), NAMES)
