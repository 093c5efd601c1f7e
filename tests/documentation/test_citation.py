"""CITATION.cff says of this package what the package says of itself."""

import tomllib
from pathlib import Path

import yaml

import lrpjax

ROOT = Path(__file__).parents[2]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_it_cites_this_version():
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["version"] == lrpjax.__version__
    assert CITATION["title"] == PROJECT["name"] and CITATION["type"] == "software"
    assert CITATION["license"] == PROJECT["license"]
    assert CITATION["abstract"] == PROJECT["description"]
    assert CITATION["keywords"] == PROJECT["keywords"]
    assert CITATION["authors"] == [{"name": "The lrpjax developers"}]


def test_it_refers_to_the_paper():
    (paper,) = CITATION["references"]
    assert paper["title"] == "When Explanations Lie: Why Many Modified BP Attributions Fail"
    assert [a["family-names"] for a in paper["authors"]] == ["Sixt", "Granz", "Landgraf"]
    assert paper["year"] == 2020 and "ICML" in paper["conference"]["name"]
