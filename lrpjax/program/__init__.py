"""A model as JAX traces it, as one flat list of equations, and what is known of its values."""

from .axes import Layout as Layout
from .program import Call as Call
from .program import Eqn as Eqn
from .program import Program as Program
from .program import Step as Step
from .program import as_written as as_written
from .program import calls_around as calls_around
from .program import constant as constant
from .program import constants_behind as constants_behind
from .program import custom_calls as custom_calls
from .program import evaluate as evaluate
from .program import is_inexact as is_inexact
from .program import is_real as is_real
from .program import opened as opened
from .program import run as run
from .program import single as single
from .trace import trace as trace
