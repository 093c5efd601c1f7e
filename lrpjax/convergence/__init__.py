"""Convergence: how fast a method's chain of relevance matrices forgets the later layers."""

from .csc import CSC as CSC
from .csc import csc as csc
