"""Files of results: whatever else is in one is refused in a sentence, arrays of any size too."""

import base64
import json
import os

import numpy as np
import pytest

from lrpjax._base.results import Results
from lrpjax.auditing import Audit
from lrpjax.auditing.verdict import DEFAULT
from lrpjax.sanity import Cascade

FINE = {"settings": {"seed": 1}, "rows": []}


def refused(words, kind, path):
    with pytest.raises(ValueError, match=words) as caught:
        kind.load(path)
    message = str(caught.value)
    assert caught.type is ValueError and path.name in message and kind.__name__ in message
    assert "\n" not in message and ". " not in message and message.endswith("."), message


def array(header, numbers=b""):
    text = header.encode()
    data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + numbers
    return {"npy": base64.b64encode(data).decode()}


HUGE = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
OBJECTS = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
DAMAGED = {
    "no JSON": (b"{", "JSONDecodeError"),
    "no text": (b"\xff\xfe", "UnicodeDecodeError"),
    "nothing": (b"", "JSONDecodeError"),
    "depth": (b"[" * 200_000, "nested too deeply"),
    "a long number": (b'{"settings": {"a": ' + b"9" * 5000 + b"}}", "ValueError"),
    "a list": (b"[]", "TypeError"),
    "no rows": (b'{"settings": {}}', "KeyError: 'rows'"),
    "rows by name": (b'{"settings": {}, "rows": {}}', "rows are no list"),
    "rows of texts": (b'{"settings": {}, "rows": ["a"]}', "settings and rows are mappings"),
    "8 TB": (json.dumps(FINE | {"rows": [array(HUGE)]}).encode(), "more or fewer"),
    "objects": (json.dumps(FINE | {"rows": [array(OBJECTS)]}).encode(), "no array of numbers"),
    "no base64": (json.dumps(FINE | {"rows": [{"npy": "!"}]}).encode(), "Error: "),
}


@pytest.mark.parametrize(("content", "words"), DAMAGED.values(), ids=DAMAGED)
def test_what_is_no_file_of_results_is_refused(content, words, tmp_path):
    (tmp_path / "r.json").write_bytes(content)
    refused(words, Results, tmp_path / "r.json")


def test_what_is_saved_is_loaded_with_arrays_that_can_be_changed(tmp_path):
    saved = Results({"seed": 1, "å": np.arange(3)}, [{"maps": np.eye(2, dtype=">f4")}])
    saved.save(tmp_path / "r.json")
    loaded = Results.load(tmp_path / "r.json")
    assert loaded == Results(saved.settings, [{"maps": np.eye(2, dtype="f4")}])
    loaded.rows[0]["maps"] += 1


def test_nothing_but_files_is_opened(tmp_path):
    os.mkfifo(tmp_path / "r.json")
    refused("it is a pipe, no file", Results, tmp_path / "r.json")
    with pytest.raises(FileNotFoundError, match=r"no file of Results results .*gone\.json"):
        Results.load(tmp_path / "gone.json")


GRID = Cascade(
    {}, [{"method": "g", "layer": "trained", "largest": 1.0}], {"g": np.zeros((1, 2, 3, 3))},
    np.zeros((2, 3, 3, 3)), ["trained"],
)  # fmt: skip
AUDIT = Audit({"seed": 1}, [{"method": "g", "check": "failed", "reason": "none"}], DEFAULT, GRID)
CHANGED = {
    "no thresholds": (lambda a: a.pop("thresholds"), "KeyError: 'thresholds'"),
    "another threshold": (lambda a: a["thresholds"].update(x=1), "unexpected keyword"),
    "a threshold beyond": (lambda a: a["thresholds"].update(converged=2), "lies between 0 and 1"),
    "a threshold of text": (lambda a: a["thresholds"].update(converged="x"), "TypeError"),
    "a method that is no text": (lambda a: a["rows"][0].update(method=[1]), "of a row is no text"),
    "a row without": (lambda a: a["rows"][0].pop("check"), "a row has no 'check'"),
    "maps without names": (lambda a: a["grid"].update(maps=[1]), "maps are no arrays by method"),
    "maps of texts": (lambda a: a["grid"]["maps"].update(g="x"), "maps are no arrays by method"),
    "pictures of texts": (lambda a: a["grid"].update(pictures="x"), "or its pictures none"),
    "an empty grid": (lambda a: a.update(grid={}), "KeyError"),
    "a grid of text": (lambda a: a.update(grid="x"), "TypeError"),
}


@pytest.mark.parametrize(("change", "words"), CHANGED.values(), ids=CHANGED)
def test_an_audit_of_something_else_is_refused(change, words, tmp_path):
    AUDIT.save(tmp_path / "a.json")
    assert Audit.load(tmp_path / "a.json") == AUDIT
    content = json.loads((tmp_path / "a.json").read_text())
    change(content)
    (tmp_path / "a.json").write_text(json.dumps(content))
    refused(words, Audit, tmp_path / "a.json")
