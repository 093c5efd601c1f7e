"""Convergence: how fast a method's chain of relevance matrices forgets the later layers."""

from .csc import CSC as CSC
from .csc import csc as csc
from .pattern_spectrum import PatternSpectrum as PatternSpectrum
from .pattern_spectrum import pattern_spectrum as pattern_spectrum
