"""Modified-backpropagation attributions for any JAX model, and whether to trust them."""

from . import composites as composites
from . import methods as methods
from . import models as models
from . import rules as rules
from .propagate import attribute as attribute
from .propagate import vjp as vjp

__version__ = "0.1.0"
