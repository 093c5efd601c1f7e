"""Convergence: how fast a method's chain of relevance matrices forgets the later layers."""

from .cone import Certificate as Certificate
from .cone import certificate as certificate
from .csc import CSC as CSC
from .csc import csc as csc
from .pattern_spectrum import PatternSpectrum as PatternSpectrum
from .pattern_spectrum import pattern_spectrum as pattern_spectrum
from .profile import Profile as Profile
from .profile import profile as profile
from .simulation import Simulation as Simulation
from .simulation import simulate as simulate
from .spectrum import Lyapunov as Lyapunov
from .spectrum import SingularValues as SingularValues
from .spectrum import lyapunov as lyapunov
from .spectrum import singular_values as singular_values
