"""Linear maps that are no parameters, anywhere in a network: what is first, last and dense is what
the model has learnt, and the maps share by z under every method of LRP."""

from itertools import count

import pytest

from .blocks_special import fixed_map
from .check import case, failures
from .rewriting import REWRITINGS
from .shares import COMPOSITES, METHODS

pytestmark = pytest.mark.usefixtures("quick_compile")

TURNS = (*COMPOSITES, *COMPOSITES, *(m for m in METHODS if m.family == "lrp"))


@pytest.mark.parametrize("seed", range(14))
def test_fixed_maps_are_no_layers_of_the_models_own(seed):
    """Every other method has a rule for the first layer, and a fixed map in front of it."""
    if seed % 2:
        drawn = case(seed, TURNS[seed % len(TURNS)], holding=fixed_map)
    else:
        method, way = COMPOSITES[seed // 2 % 2], REWRITINGS[seed]
        cases = (case(seed + 100 * k, method, way, holding=fixed_map) for k in count())
        drawn = next(c for c in cases if c.net.nodes[1].kind in ("fixed", "spectral"))
    assert not list(failures(drawn))
