"""A JAX function becomes a chain of named layers. Knows nothing of relevance."""

from .coverage import covered as covered
from .kernels import kernel as kernel
from .layers import LINEAR as LINEAR
from .layers import Graph as Graph
from .layers import Layer as Layer
from .ops import Linear as Linear
from .ops import Op as Op
from .ops import bare as bare
from .ops import factor as factor
from .ops import make_linear as make_linear
from .ops import make_op as make_op
from .ops import tupled as tupled
from .patches import fan_in as fan_in
from .patches import grid as grid
from .patches import neuron_sums as neuron_sums
from .patches import on_grid as on_grid
from .patches import patch_sums as patch_sums
from .program import is_inexact as is_inexact
from .program import run as run
from .program import single as single
from .registry import REGISTERED as REGISTERED
from .trace import trace as trace
from .wiring import Wiring as Wiring
from .wiring import wiring as wiring
