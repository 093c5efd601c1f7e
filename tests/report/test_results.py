"""All classes of results: joined, saved, printed and drawn alike. A class that forgets something
fails here, as does one without an example."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from base64 import b64decode, b64encode
from dataclasses import fields, replace
from html.parser import HTMLParser
from importlib import import_module
from io import BytesIO

import numpy as np
import pytest
from helpers.results import EXAMPLES, csc, sanity
from PIL import Image

import lrpjax
from lrpjax._base.arrays import decoded, encoded
from lrpjax._base.results import Results
from lrpjax._base.upwards import figure_of, page_of
from lrpjax.concepts import TCAV
from lrpjax.convergence import CSC, Certificate, Lyapunov, SingularValues
from lrpjax.report.style import Figure
from lrpjax.sanity import Sanity

NAME = '<b>"mine" & co</b>'  # names of layers and methods are text from outside
OTHER = "other"
UNDRAWN = {SingularValues, Lyapunov, Certificate, TCAV}
SUMMED_UP = {"Audit", "Certificate"}  # whose table has other lines than rows
every = pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)


def below(kind):
    return {kind, *(own for sub in kind.__subclasses__() for own in below(sub))}


def test_every_class_has_an_example():
    for module in pkgutil.walk_packages(lrpjax.__path__, "lrpjax."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    own = {kind for kind in below(Results) if kind.__module__.startswith("lrpjax.")}
    assert {kind for kind in own if not kind.__subclasses__()} == set(EXAMPLES)


# --- joined --------------------------------------------------------------------------------------


@every
def test_results_are_joined(kind):
    a, b = EXAMPLES[kind](NAME), EXAMPLES[kind](OTHER)
    joined = a + b
    assert type(joined) is kind and joined == sum([a, b])
    assert a == EXAMPLES[kind](NAME)  # is as it was
    if kind.__name__ not in ("Audit", "Bottleneck"):
        assert joined.rows == a.rows + b.rows
        assert joined.settings == {**a.settings, **b.settings}
    assert joined != a and joined != b and a != b


@every
def test_results_of_another_class_are_not_joined(kind):
    result = EXAMPLES[kind](NAME)
    other = sanity(NAME) if kind is not Sanity else csc(NAME)
    for wrong in (other, 1, None, "csc"):
        with pytest.raises(TypeError, match=rf"{kind.__name__} results .* {type(wrong).__name__}"):
            result + wrong
    with pytest.raises(TypeError):
        1 + result
    assert result != other and result != 0


# --- files ---------------------------------------------------------------------------------------


@every
def test_results_are_loaded_with_all_that_they_were_saved_with(kind, tmp_path):
    result = EXAMPLES[kind](NAME) + EXAMPLES[kind](OTHER)
    result.save(tmp_path / "r.json")
    again = kind.load(tmp_path / "r.json")
    assert again == result and str(again) == str(result)
    for field in fields(kind):
        a, b = (encoded(getattr(one, field.name)) for one in (result, again))
        assert type(getattr(result, field.name)) is type(getattr(again, field.name)) or a == b
    assert [file.name for file in tmp_path.iterdir()] == ["r.json"]
    json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)


@every
def test_a_file_without_a_column_is_refused(kind, tmp_path):
    assert kind.required
    result = EXAMPLES[kind](NAME)
    for name in kind.required:
        content = {**result.content(), "rows": [dict(row) for row in result.rows]}
        del content["rows"][-1][name]
        (tmp_path / "bad.json").write_text(json.dumps(encoded(content)))
        with pytest.raises(ValueError, match=rf"{kind.__name__} results .*bad\.json.*{name}"):
            kind.load(tmp_path / "bad.json")


@every
def test_a_file_of_another_class_is_refused(kind, tmp_path):
    for other, example in EXAMPLES.items():
        if other is not kind:
            example(NAME).save(tmp_path / "other.json")
            with pytest.raises(ValueError, match=rf"{kind.__name__} results .*other\.json"):
                kind.load(tmp_path / "other.json")


@every
@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"settings": {}}', '{"rows": []}'])
def test_files_of_something_else(kind, content, tmp_path):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=rf"{kind.__name__} results .*bad\.json"):
        kind.load(tmp_path / "bad.json")


@pytest.mark.parametrize(("settings", "rows"), [({}, [1]), ([], []), ({}, ["method"]), ({}, 3)])
def test_rows_that_are_none(settings, rows, tmp_path):
    (tmp_path / "bad.json").write_text(json.dumps({"settings": settings, "rows": rows}))
    with pytest.raises(ValueError, match="bad"):
        CSC.load(tmp_path / "bad.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_written(value, tmp_path):
    result = csc(NAME)
    result.rows[0]["median"] = value
    with pytest.raises(ValueError, match="JSON"):
        result.save(tmp_path / "r.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "bool"])
def test_arrays_keep_every_digit_their_type_and_shape(dtype):
    draw = np.random.default_rng(0).normal(size=(3, 1, 4)).astype(dtype)
    for array in (draw, draw.T, draw[:0], np.broadcast_to(draw, (3, 2, 4)), draw[0, 0, 0:1]):
        again = decoded(json.loads(json.dumps(encoded({"a": [array]}))))["a"][0]
        assert again.dtype == array.dtype and np.array_equal(again, array)


def test_arrays_are_never_unpickled():
    with pytest.raises(ValueError, match="Object arrays"):
        encoded({"a": np.array([object()])})
    stream = BytesIO()
    np.save(stream, np.array([print]), allow_pickle=True)
    with pytest.raises(ValueError, match="no array of numbers"):
        decoded({"npy": b64encode(stream.getvalue()).decode()})


@pytest.mark.parametrize("text", ["no base64!", b64encode(b"no array").decode(), ""])
def test_a_damaged_array_is_refused(text):
    with pytest.raises(ValueError):
        decoded({"npy": text})


# --- printed -------------------------------------------------------------------------------------


@every
def test_a_printed_table_has_a_line_for_each_row(kind):
    result = EXAMPLES[kind](NAME) + EXAMPLES[kind](OTHER)
    table, *below_it = str(result).split("\n\n")
    header, *lines = table.splitlines()
    if kind.__name__ not in SUMMED_UP:
        assert len(lines) == len(result.rows)
        assert set(kind.shown) & set(result.rows[0]) <= set(header.split())
    if kind.__name__ != "Audit":
        assert all(name in below_it[-1] for name in result.settings)
    assert not any(line.endswith(" ") for line in str(result).splitlines())
    assert len(repr(result)) < 80 and kind.__name__ in repr(result)


def test_a_table_is_not_cut_and_has_short_numbers():
    columns = {"undirected": None, "median": 1 / 3, "one_minus_median": 1.23456e-9, "baseline": 3}
    row = {"method": "m" * 300, "start": "s", "layer": "l", **columns}
    (_, *lines), _ = (part.splitlines() for part in str(CSC({}, [row] * 500)).split("\n\n"))
    assert len(lines) == 500
    shown = ["m" * 300, "s", "l", "0.333", "1.23e-9", "3", "\N{EN DASH}"]
    assert all(line.split() == shown for line in lines)


def test_columns_that_some_rows_have_are_empty_in_the_others():
    both = sanity("a") + sanity("b", "random-logit")
    lines = str(both).split("\n\n")[0].splitlines()
    place = lines[0].index("layer")
    assert [line[place : place + 4].strip() for line in lines[1:]] == ["fc", "conv", ""]


# --- Jupyter -------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The tags, texts and images of some HTML."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.images = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attributes))

    def handle_data(self, data):
        self.texts.append(data)


KNOWN_TAGS = {"div", "table", "thead", "tbody", "tr", "th", "td", "p", "img"}


@every
def test_jupyter_shows_the_table_with_its_texts_escaped(kind):
    result = EXAMPLES[kind](NAME) + EXAMPLES[kind](OTHER)
    page = Page(result._repr_html_())
    assert set(page.tags) <= KNOWN_TAGS and page.tags.count("table") == 1
    printed = str(result).split("\n\n")[0].splitlines()
    assert page.tags.count("tr") == len(printed)
    name = result.settings["layer"] if kind.__name__ == "Bottleneck" else NAME
    assert any(name in text for text in page.texts)


@every
def test_jupyter_shows_the_figure_where_there_is_one(kind):
    page = Page(EXAMPLES[kind](NAME)._repr_html_())
    if kind in UNDRAWN:
        assert not page.images
        return
    (image,) = page.images
    assert image["alt"]
    media, _, content = image["src"].partition(",")
    assert media == "data:image/png;base64"
    picture = Image.open(BytesIO(b64decode(content)))
    assert picture.format == "PNG" and len(set(picture.convert("L").tobytes())) > 5


@every
def test_a_result_without_rows_says_so(kind):
    empty = replace(EXAMPLES[kind](NAME), rows=[])
    assert str(empty).startswith("no rows")
    if kind.__name__ not in ("Cascade", "TwoClasses", "Bottleneck"):  # whose figures are of arrays
        page = Page(empty._repr_html_())
        assert not page.images
        with pytest.raises((ValueError, TypeError)) as error:
            empty.plot()
        assert str(error.value).endswith(".") and "\n" not in str(error.value)


# --- figures and pages ---------------------------------------------------------------------------


@every
def test_a_figure_is_of_its_result(kind):
    result = EXAMPLES[kind](NAME)
    if kind in UNDRAWN:
        with pytest.raises(TypeError, match=f"no figure of {kind.__name__} results"):
            result.plot()
    else:
        assert type(result.plot()) is Figure
        assert figure_of.dispatch(kind).__module__.startswith("lrpjax.report.")


def test_every_figure_of_the_registry_is_of_a_class_with_an_example():
    assert {*figure_of.registry} - {object} == set(EXAMPLES) - UNDRAWN


def test_what_has_no_figure_and_no_page():
    for function in (figure_of, page_of):
        with pytest.raises(TypeError, match="no figure of list results"):
            function([])


def test_options_go_to_the_figure():
    with pytest.raises(ValueError, match="scale"):
        csc(NAME).plot(scale="cubic")
    with pytest.raises(TypeError, match="colour"):
        csc(NAME).plot(colour="red")


LOADS = """
import sys
from lrpjax.{room} import {name}
from helpers.results import EXAMPLES

result = EXAMPLES[{name}]("mine")
assert not [m for m in sys.modules if m.startswith(("lrpjax.report", "matplotlib"))]
assert {call}
assert "lrpjax.report" in sys.modules
"""


@pytest.mark.parametrize(
    ("room", "name", "call"),
    [
        ("convergence", "CSC", "result.plot()"),
        ("sanity", "Cascade", "result._repr_html_()"),
        ("auditing", "Audit", "not result.save('audit.html')"),
    ],
)
def test_the_report_is_loaded_when_it_is_first_asked(room, name, call, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    script = LOADS.format(room=room, name=name, call=call)
    command = [sys.executable, "-c", script]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
