"""Concepts that are shown in images: whether a class depends on them."""

from .testing import TCAV as TCAV
from .testing import tcav as tcav
