"""Names of methods, layers, classes, images and models may hold anything, and be of any length."""

from __future__ import annotations

import csv
import re
import warnings
from io import BytesIO, StringIO

import numpy as np
import pytest
from helpers.html_tree import Tree
from helpers.results import EXAMPLES, audit, cascade, csc, sanity, two_classes
from matplotlib.text import Text
from PIL import Image

from lrpjax import plots
from lrpjax._base import jobs, progress, upwards
from lrpjax._base.text import columns, visible
from lrpjax.auditing import Audit
from lrpjax.convergence import PatternSpectrum, Profile
from lrpjax.report.page import csv_text
from lrpjax.report.texts import drawn, wrapped

ODD = {
    "a broken formula": "$x^$",
    "a formula": "$5 and $6",
    "an escaped dollar": r"\$x_{",
    "backslashes": "a\\b\\",
    "markup of rich": "[/x] [bold]\\",
    "quotes": "\"a' `b`",
    "a script": "<script>alert(1)</script> & co",
    "lines": "one\ntwo\r\nthree\tfour",
    "controls": "\x00\x1b[31mred\x07",
    "an emoji": "\N{GRINNING FACE} grad",
    "from right to left": "\u05e9\u05dc\u05d5\u05dd \u202eabc",
    "a letter of 500": "w" * 500,
    "words of 500 letters": "a long name " * 40,
    "an underscore": "_private",
    "formats": "%s {x} {0}",
    "no UTF-8": "caf\udce9",
}
each = pytest.mark.parametrize("name", ODD.values(), ids=ODD)


NAMES = list(ODD.values())
PICTURES = np.random.default_rng(0).random((2, 6, 8))


def with_layers(result, names):
    """The rows of one method, with these layers in the place of its own."""
    rows = [{**result.rows[0], "layer": name} for name in names]
    return type(result)(result.settings, rows)


FIGURES = {
    "csc": lambda names: sum(map(csc, names)).plot(),
    "its layers": lambda names: with_layers(csc("z"), names).plot(scale="log"),
    "profile": lambda names: sum(map(EXAMPLES[Profile], names)).plot(),
    "patterns": lambda names: EXAMPLES[PatternSpectrum](names[0]).plot(),
    "randomisation": lambda names: sum(map(sanity, names)).plot(),
    "its layers too": lambda names: with_layers(sanity("z"), names).plot(),
    "other class": lambda names: sum(sanity(name, "random-logit") for name in names).plot(),
    "cascade": lambda names: plots.cascade(sum(map(cascade, names)), name=names[0]),
    "its stops": lambda names: cascade("z", stops=["trained", names[0], names[-1]]).plot(),
    "two classes": lambda names: plots.two_classes(
        sum(map(two_classes, names)), names=[names[0], names[-1], "c"]
    ),
    "sheet": lambda names: plots.sheet(
        PICTURES, dict.fromkeys(names, PICTURES), captions=[names[0], f"a\n{names[-1]}"]
    ),
    "one map": lambda names: plots.heatmap(PICTURES[0], title=names[0], caption=names[-1]),
}
each_figure = pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)


@each_figure
def test_it_is_drawn_without_a_warning(figure):
    """Every name is the first once, for what a figure has one of."""
    once = figure in (FIGURES["patterns"], FIGURES["its stops"], FIGURES["one map"])
    for first in range(len(NAMES) if once else 1):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            png = figure(NAMES[first:] + NAMES[:first])._repr_png_()
        Image.open(BytesIO(png)).verify()


@each_figure
def test_a_long_name_leaves_room_for_what_is_drawn(figure):
    """The largest panel is not much smaller than with short names."""
    wanted = largest(figure(["z", "y"]))
    for name in (ODD["a letter of 500"], ODD["words of 500 letters"]):
        found = largest(figure([name, name + "z"]))
        assert (found > 0.5 * wanted).all(), (found, wanted)


def largest(figure):
    """Width and height in inches of the largest panel."""
    figure.draw_without_rendering()
    boxes = [panel.get_position() for panel in figure.axes]
    box = max(boxes, key=lambda box: box.width * box.height)
    return np.array([box.width, box.height]) * figure.get_size_inches()


def test_a_name_is_drawn_as_it_is_written():
    figure = csc("$x^$").plot()
    figure.draw_without_rendering()
    shown = [text for text in figure.findobj(Text) if "x^" in text.get_text()]
    assert shown
    for text in shown:
        assert text._preprocess_math(text.get_text()) == ("$x^$", False)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("lrp-z", "lrp-z"),
        ("a" * 30 + "b" * 30, "a" * 24 + "\N{HORIZONTAL ELLIPSIS}" + "b" * 23),
        ("x\ny", r"x\ny"),
        ("\u202eabc", r"\u202eabc"),
        ("$5", r"\$5"),
        ("_x", "\N{HAIR SPACE}_x"),
        (7, "7"),
    ],
)
def test_a_name_of_a_line(given, shown):
    assert drawn(given) == shown


def test_lines_are_kept_where_there_is_room_for_them():
    assert wrapped("a.png\ncat, 3.2", 30) == "a.png\ncat, 3.2"
    assert wrapped("layer4.2.downsample.0", 15, whole=True) == "layer4.2.downsample.0"
    broken = wrapped("w" * 500, 30).split("\n")
    assert len(broken) == 3 and max(map(len, broken)) == 30


@each
def test_a_printed_table_has_its_lines(name):
    lines = columns([{"method": name, "n": "1"}, {"method": "z", "n": "2"}]).splitlines()
    assert len(lines) == 3 and "\x1b" not in lines[1]
    lines[1].encode()


def test_a_page_shows_every_name_as_text_and_holds_its_numbers(tmp_path):
    found = sum(map(audit, NAMES))
    found.save(tmp_path / "audit.html")
    root = Tree((tmp_path / "audit.html").read_text(encoding="utf-8")).root
    assert "could not be" not in root.text
    assert len(list(root.all("script"))) == 1
    assert len(list(root.all("img"))) >= 6
    body = next(iter(root.all("tbody")))
    assert {cell.text.strip() for cell in body.all("th")} == {
        *(visible(name).strip() for name in NAMES),
        "random noise",
    }
    found.save(tmp_path / "audit.json")
    assert Audit.load(tmp_path / "audit.json").methods == found.methods


@each
def test_bars_show_a_name_as_it_is(name, monkeypatch):
    assert jobs.run([name], lambda job: job, lambda job, result: None) == {}
    monkeypatch.setattr(progress, "PATIENCE", 0)
    monkeypatch.setattr(progress, "seen", lambda: True)
    if "\udce9" not in name:  # which no terminal can write
        assert list(progress.track([1, 2], name)) == [1, 2]


# --- what fails leaves the rest ------------------------------------------------------------------


def test_a_figure_that_cannot_be_drawn_leaves_the_page(monkeypatch):
    def broken(*given, **options):
        raise RuntimeError("no <font>")

    monkeypatch.setattr(plots, "randomisation", broken)
    text = page_of("lrp-z")
    assert "This part could not be made (RuntimeError: no <font>)" in text.root.text
    assert len(list(text.root.all("img"))) > 3
    monkeypatch.setattr("lrpjax.report.page.figure_uri", broken)
    text = page_of("lrp-z")
    assert text.root.text.count("could not be drawn (RuntimeError: no <font>)") > 3
    assert list(text.root.all("img")) == []
    assert any(link.text == "audit.json" for link in text.root.all("a"))


def page_of(name):
    return Tree(upwards.page_of(audit(name)))


# --- CSV -----------------------------------------------------------------------------------------

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", '=HYPERLINK("http://x")']


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_a_csv_is_a_formula(text):
    (row,) = csv.DictReader(StringIO(csv_text([{"method": text, text: "a"}]), newline=""))
    assert row == {"method": f"'{text}", f"'{text}": "a"}


def test_numbers_of_a_csv_stay_numbers():
    (row,) = csv.DictReader(StringIO(csv_text([{"a": -1.5, "b": -3, "c": "1-2", "d": [-1]}])))
    assert row == {"a": "-1.5", "b": "-3", "c": "1-2", "d": "[-1]"}
    assert not re.search("'", csv_text([{"a": -1.5, "b": np.float32(-2)}]))
