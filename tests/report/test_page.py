"""The HTML page as text: structure, escaping and what is inside. `test_page_browser` opens it."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ElementTree
from base64 import b64decode, b64encode
from collections import Counter
from hashlib import sha256
from io import BytesIO, StringIO
from math import inf, nan
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from helpers.html_tree import Tree
from helpers.page_example import COLUMNS, CONTENT, FILES, HOSTILE, ROWS, heat_map
from PIL import Image

import lrpjax.report
from lrpjax.report.page import LEVELS, Column, Picture, Section, csv_text, page

ADDRESSES = {"src", "href", "action", "data", "poster", "srcset", "formaction", "cite", "ping"}
HERE = Path(lrpjax.report.__file__).parent


def parse(**changes):
    return Tree(page(**{**CONTENT, **changes})).root


@pytest.fixture(scope="module")
def root():
    return parse()


def content_of(uri):
    """(media type, bytes) of a data URI, by RFC 2397."""
    head, data = uri.removeprefix("data:").split(",", 1)
    raw = unquote_to_bytes(data)
    return head.removesuffix(";base64"), b64decode(raw) if head.endswith(";base64") else raw


def one_cell(column, value):
    """The cell of a table of two columns in which it stands second."""
    rows = [{"method": "m", column.field: value}]
    root = parse(columns=[COLUMNS[0], column], rows=rows, sections=[])
    return root.one("tbody").one("td")


def words(element):
    return " ".join(element.text.split())


# Structure


def test_names_are_unique_and_what_is_referred_to_is_there(root):
    ids = [e["id"] for e in root.all() if "id" in e.attributes]
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    referred = {e["href"][1:] for e in root.all() if e.attributes.get("href", "").startswith("#")}
    for attribute in ("popovertarget", "aria-labelledby"):
        referred |= {e[attribute] for e in root.all() if attribute in e.attributes}
    assert referred <= set(ids)


def test_the_contents_name_every_part_in_order(root):
    linked = [(link["href"], link.text) for link in root.one("nav").all("a")]
    parts = [("#" + heading["id"], heading.text) for heading in root.all("h2")]
    assert linked == parts
    titles = [section.title for section in CONTENT["sections"]]
    assert [text for _, text in parts] == ["Summary", *titles, "Settings", "Reproduce", "Data"]


def test_the_summary_stands_first_and_its_headings_are_buttons(root):
    table = next(root.all("table"))
    assert table["aria-labelledby"] == "summary"
    headings = list(table.one("thead").all("th"))
    assert [h["aria-sort"] for h in headings] == ["none"] * len(COLUMNS)
    assert [h["data-kind"] for h in headings] == [c.kind for c in COLUMNS]
    assert [h.one("button", of="sort").text for h in headings] == [c.title for c in COLUMNS]
    rows = list(table.one("tbody").all("tr"))
    assert [row.one("th").text for row in rows] == [row["method"] for row in ROWS]
    assert all(row.one("th")["scope"] == "row" for row in rows)


def test_hints_stand_at_the_heading_and_below_the_table(root):
    hinted = [column for column in COLUMNS if column.hint]
    legend = next(root.all("dl", of="legend"))
    assert [d.text for d in legend.all("dt")] == [c.title for c in hinted]
    assert [d.text for d in legend.all("dd")] == [c.hint for c in hinted]
    buttons = list(next(root.all("thead")).all("button", of="hint"))
    tips = {tip["id"]: tip.text for tip in root.all("div", of="tip")}
    assert [tips[b["popovertarget"]] for b in buttons] == [f"{c.title} {c.hint}" for c in hinted]


def test_paragraphs_are_separated_by_blank_lines(root):
    lead = [p.text for p in root.one("div", of="lead").all("p")]
    assert lead == ["First paragraph.", f"Second {HOSTILE}\nof two lines."]
    assert list(parse(lead="", sections=[]).one("div", of="lead").all("p")) == []


def test_what_is_not_given_is_left_out():
    root = parse(files={}, sections=[], rows=[])
    assert [h.text for h in root.all("h2")] == ["Summary", "Settings", "Reproduce"]
    assert not [a for a in root.all("a") if "download" in a.attributes]


def test_settings_are_listed_by_name(root):
    shown = root.one("dl", of="settings")
    names, values = ([d.text for d in shown.all(tag)] for tag in ("dt", "dd"))
    assert dict(zip(names, values, strict=True)) == {
        HOSTILE: HOSTILE,
        "methods": "a, b",
        "versions": "jax: 0.8, numpy: 2",
        "start": "\N{EN DASH}",
        "whole": "yes",
    }


# Nothing from outside, nothing that runs


def test_nothing_is_loaded(root):
    for element in root.all():
        for name in ADDRESSES & set(element.attributes):
            assert re.match(r"data:|#", element[name]), f"{element.tag} {name}"
    style = root.one("style").text
    assert "url(" not in style and "@import" not in style
    assert not re.search(r"\b(fetch|XMLHttpRequest|import|WebSocket|src)\b", script_of(root))


def script_of(root):
    script = root.one("script")
    assert script.attributes == {}
    return script.text


def test_only_the_script_of_the_package_runs(root):
    script = script_of(root)
    assert script == (HERE / "page.js").read_text()
    for element in root.all():
        assert not [name for name in element.attributes if name.startswith("on")]
    (policy,) = [m["content"] for m in root.all("meta") if "http-equiv" in m.attributes]
    directives = dict(d.split(maxsplit=1) for d in policy.split("; "))
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert directives == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "script-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    order = [e.tag for e in root.one("head").children]
    assert order.index("meta") < order.index("style"), "the policy comes first"


def test_texts_are_texts(root):
    tags = Counter(e.tag for e in root.all())
    assert tags["script"] == tags["style"] == tags["title"] == 1
    assert tags["img"] == 3  # those of the pictures, none of the texts'
    assert root.one("title").text == root.one("h1").text == CONTENT["title"]
    assert root.one("code").text == CONTENT["reproduce"]
    hostile = next(
        row for row in next(root.all("tbody")).all("tr") if row.one("th").text == HOSTILE
    )
    verdict, ssim, csc, note = hostile.all("td")
    assert verdict.one("span", of="reason").text == note.text == HOSTILE
    assert (ssim.text, csc.text) == ("0.25", "<i>2e-9")


# Pictures and files


def test_every_picture_is_inside_and_has_words(root):
    pictures = [p for section in CONTENT["sections"] for p in section.pictures]
    figures = list(root.all("figure"))
    assert [f.one("figcaption").text for f in figures] == [p.caption for p in pictures]
    assert [f.one("img")["alt"] for f in figures] == [p.alt for p in pictures]


def test_line_charts_are_svg_and_heat_maps_and_crowds_are_png(root):
    line, heat, crowd = (content_of(image["src"]) for image in root.all("img"))
    assert line[0] == "image/svg+xml"
    svg = ElementTree.fromstring(line[1])
    assert svg.tag.endswith("}svg")
    assert not [e for e in svg.iter() if e.tag.endswith("}text")], "letters are outlines"
    assert heat[0] == crowd[0] == "image/png"
    assert Image.open(BytesIO(heat[1])).size == (3 * 160, 2 * 160)


def test_pictures_have_the_size_at_which_their_letters_do(root):
    sizes = [(image["width"], image["height"]) for image in root.all("img")]
    assert sizes == [("864", "480"), ("288", "192"), ("384", "288")]  # 96 pixels to the inch


def test_the_same_content_gives_the_same_page():
    assert page(**CONTENT) == page(**CONTENT)


def test_files_come_back_as_they_were(root):
    links = {a["download"]: a["href"] for a in root.all("a") if "download" in a.attributes}
    found = {name: content_of(uri) for name, uri in links.items()}
    assert {name: content.decode() for name, (_, content) in found.items()} == FILES
    kinds = {name: kind.split(";")[0] for name, (kind, _) in found.items()}
    assert kinds == {
        "audit.json": "application/json",
        "audit.csv": "text/csv",
        "notes.txt": "text/plain",
    }


@pytest.mark.parametrize(
    ("bytes_", "shown"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (2_340_000, "2.3 MB")]
)
def test_size_of_a_file(bytes_, shown):
    assert (
        parse(files={"a": "x" * bytes_}, sections=[]).one("ul", of="files").one("span").text
        == shown
    )


def test_the_name_of_a_file_is_a_text():
    links = parse(files={HOSTILE: "x"}, sections=[]).one("ul", of="files")
    assert links.one("a")["download"] == links.one("a").text == HOSTILE


# Cells


@pytest.mark.parametrize(
    ("given", "text", "value"),
    [
        (0.25, "0.25", 0.25),
        (1 / 3, "0.333", 1 / 3),
        (-1.5, "-1.5", -1.5),
        (6e-6, "6e-6", 6e-6),
        (-2.5e12, "-2.5e12", -2.5e12),
        (1234567, "1234567", 1234567),
        ((6e-6, "1-6e-6"), "1-6e-6", 6e-6),
        ((None, "not run"), "not run", None),
        (inf, "inf", inf),
        (nan, "nan", None),
        (None, "\N{EN DASH}", None),
        ("not run", "not run", None),
    ],
)
def test_a_number_is_shown_short_and_kept_whole(given, text, value):
    cell = one_cell(Column("x", "x", kind="number"), given)
    assert cell.text == text
    shown = cell.attributes.get("data-value")
    assert (None if shown is None else float(shown)) == value
    assert shown is None or "inf" not in shown  # JavaScript calls it Infinity


@pytest.mark.parametrize(
    ("given", "text"), [("a", "a"), (3, "3"), (True, "yes"), (["a", 1], "a, 1"), ("", "")]
)
def test_other_values_are_shown_as_text(given, text):
    cell = one_cell(Column("x", "x"), given)
    assert cell.text == text and "data-value" not in cell.attributes
    assert "data-none" not in cell.attributes


def test_a_text_that_is_missing_is_marked():
    assert "data-none" in one_cell(Column("x", "x"), None).attributes


@pytest.mark.parametrize("level", LEVELS)
def test_a_verdict_has_a_symbol_a_word_and_its_text(level):
    cell = one_cell(Column("x", "x", kind="verdict"), {"level": level, "text": "for a reason"})
    badge = cell.one("span", of="badge")
    assert words(badge) == level and level in badge["class"].split()
    assert badge.one("use")["href"] == f"#symbol-{level}"
    assert cell.one("span", of="reason").text == "for a reason"
    assert int(cell["data-value"]) == LEVELS.index(level)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("Ignores: the class", "the class"),
        ("ignores the class", "the class"),
        ("ignores", None),
        ("", None),
        ("ignoresome", "ignoresome"),
    ],
)
def test_the_word_of_a_verdict_is_not_said_twice(text, rest):
    cell = one_cell(Column("x", "x", kind="verdict"), {"level": "ignores", "text": text})
    assert [reason.text for reason in cell.all("span", of="reason")] == ([rest] if rest else [])


def test_verdicts_are_counted(root):
    counts = [words(item) for item in next(root.all("ul", of="levels")).all("li")]
    assert counts == ["ignores 2", "doubt 2", "depends 2", "failed 1", "control 1"]


# Errors


def test_a_row_without_a_field():
    with pytest.raises(ValueError, match=r"Row 2 has no 'csc', .*'1 - CSC'"):
        page(**{**CONTENT, "rows": [ROWS[0], {k: v for k, v in ROWS[1].items() if k != "csc"}]})


def test_an_unknown_level():
    with pytest.raises(ValueError, match=r"no level 'fine'.*'verdict'.*ignores, doubt, depends"):
        page(**{**CONTENT, "rows": [{**ROWS[0], "verdict": {"level": "fine", "text": ""}}]})


def test_a_picture_without_words():
    section = Section("s", pictures=[Picture(heat_map(), "the caption", " ")])
    with pytest.raises(ValueError, match="'the caption' has no alternative text"):
        page(**{**CONTENT, "sections": [section]})


# CSV


def test_csv_comes_back():
    rows = [
        {"method": 'a "b",\nc', "values": [1, 2.5, None], "n": 3, "x": 0.1},
        {"method": "\N{GREEK SMALL LETTER ALPHA}", "x": None, "pair": ("a", 1), "more": {"k": [1]}},
    ]
    first, second = csv.DictReader(StringIO(csv_text(rows)))
    assert list(first) == ["method", "values", "n", "x", "pair", "more"]
    assert first["method"] == rows[0]["method"]
    assert json.loads(first["values"]) == [1, 2.5, None]
    assert (int(first["n"]), float(first["x"]), first["more"]) == (3, 0.1, "")
    assert (second["x"], second["n"]) == ("", "")
    assert json.loads(second["pair"]) == ["a", 1] and json.loads(second["more"]) == {"k": [1]}


def test_csv_of_nothing():
    assert csv_text([]) == csv_text([{}]) == ""
