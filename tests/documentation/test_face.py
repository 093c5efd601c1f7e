"""What `import lrpjax` shows and loads."""

import subprocess
import sys
from importlib import import_module
from inspect import isclass, isfunction
from pathlib import Path
from types import ModuleType

import pytest

import lrpjax

PACKAGE = Path(lrpjax.__file__).parent
NAMES = """
    Reading attribute audit auditing bottleneck chain composites convergence iba matrix methods
    models patterns plan plots read rules sanity show_versions tcav vjp
""".split()


def test_the_package_shows_its_public_names_and_no_others():
    assert lrpjax.__all__ == dir(lrpjax) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_there_whatever_was_loaded_before(name):
    """No function stands before a module of its name: which of the two one got would depend on
    what had been imported."""
    found = getattr(lrpjax, name)
    is_module = name in NAMESPACES
    assert isinstance(found, ModuleType) == is_module
    if is_module:
        inner = "report.plots" if name == "plots" else name
        assert import_module(f"lrpjax.{inner}") is found
        assert getattr(lrpjax, name) is found


def test_what_is_no_name_of_the_package_is_none():
    with pytest.raises(AttributeError, match="explainn"):
        _ = lrpjax.explainn


SCRIPT = """
import sys
import lrpjax as lrp

assert 'jax' not in sys.modules
import jax
import numpy as np

w = np.ones((4, 3), np.float32)
model = lambda x: jax.nn.gelu(jax.nn.relu(x @ w)) @ w.T
lrp.attribute(model, np.ones((2, 4), np.float32), 'lrp-zplus', target=0)
found = {'flax', 'scipy', 'matplotlib', 'sklearn', 'skimage', 'optax', 'PIL'} & set(sys.modules)
assert not found, found
"""


def test_a_map_of_a_plain_function_loads_nothing_that_it_does_not_need():
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


INNER = {"rules": {"deeplift", "patterns"}}  # modules that are shown
NAMESPACES = (
    "auditing bottleneck composites convergence methods models patterns plots rules sanity"
).split()


@pytest.mark.parametrize("name", NAMESPACES)
def test_a_namespace_shows_what_is_its_own(name):
    """No module of another library, and none of this one but where it is a namespace itself."""
    namespace = getattr(lrpjax, name)
    assert dir(namespace) == sorted(namespace.__all__)
    inner = INNER.get(name, set())
    for shown in namespace.__all__:
        found = getattr(namespace, shown)
        assert isinstance(found, ModuleType) == (shown in inner), shown
        if isfunction(found) or isclass(found):
            assert found.__module__.startswith("lrpjax."), shown


@pytest.mark.parametrize("name", [n for n in NAMESPACES if (PACKAGE / n).is_dir()])
def test_no_function_of_a_namespace_hides_a_module(name):
    modules = {path.stem for path in (PACKAGE / name).glob("*.py")}
    inner = INNER.get(name, set())
    assert modules.intersection(getattr(lrpjax, name).__all__) == inner


def test_all_methods_of_the_table_are_in_their_namespace():
    for name, entry in lrpjax.methods.TABLE.items():
        maker = getattr(entry.make, "func", entry.make)
        assert getattr(lrpjax.methods, maker.__name__) is maker, name
