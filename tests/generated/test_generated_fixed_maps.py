"""Linear maps that are no parameters, anywhere in a network: what is first, last and dense is what
the model has learnt, and the maps share by z under every method of LRP."""

import pytest

from .blocks_special import fixed_map
from .check import case, failures
from .shares import COMPOSITES, METHODS

pytestmark = pytest.mark.usefixtures("quick_compile")

TURNS = (*COMPOSITES, *COMPOSITES, *(m for m in METHODS if m.family == "lrp"))


@pytest.mark.parametrize("seed", range(18))
def test_fixed_maps_are_no_layers_of_the_models_own(seed):
    """Every other method has a rule for the first layer."""
    method = TURNS[seed % len(TURNS)] if seed % 2 else COMPOSITES[seed // 2 % 2]
    assert not list(failures(case(seed, method, holding=fixed_map)))
