"""Convergence: how fast a method's chain of relevance matrices forgets the later layers."""

from .csc import CSC as CSC
from .csc import csc as csc
from .simulation import Simulation as Simulation
from .simulation import simulate as simulate
