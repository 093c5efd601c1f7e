"""Modified-backpropagation attributions for any JAX model, and whether to trust them."""

from . import auditing as auditing
from . import bottleneck as bottleneck
from . import composites as composites
from . import convergence as convergence
from . import methods as methods
from . import models as models
from . import patterns as patterns
from . import rules as rules
from . import sanity as sanity
from .attribution import attribute as attribute
from .attribution import vjp as vjp
from .auditing import audit as audit
from .bottleneck import iba as iba
from .chain import chain as chain
from .chain import matrix as matrix
from .concepts import tcav as tcav
from .plan import plan as plan
from .reading import Reading as Reading
from .reading import read as read
from .report import plots as plots

__version__ = "0.1.0"
