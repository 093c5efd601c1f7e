"""Options at the limits of their range: the map is the oracle's. Beyond: refused by name."""

import pytest

from .check import case, wrong_with
from .options import LIMITS, OPTIONS

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.mark.parametrize("method", LIMITS, ids=str)
def test_at_the_limits_of_an_option_the_map_is_the_oracles(method):
    for seed in range(2):
        assert not wrong_with(case(seed + sum(map(ord, str(method))), method))


BEYOND = [(option, value) for option in OPTIONS for value in option.beyond]


@pytest.mark.parametrize(("option", "value"), BEYOND, ids=lambda v: getattr(v, "name", str(v)))
def test_beyond_its_range_an_option_is_refused_by_its_name(option, value):
    """Not by what comes of it: NaN in the map of one network is none in another's."""
    with pytest.raises(ValueError, match=rf"(?i)\b{option.name}\b"):
        option.made(value)
