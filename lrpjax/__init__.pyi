from . import auditing as auditing
from . import bottleneck as bottleneck
from . import composites as composites
from . import convergence as convergence
from . import methods as methods
from . import models as models
from . import patterns as patterns
from . import rules as rules
from . import sanity as sanity
from ._base.versions import show_versions as show_versions
from .attribution import attribute as attribute
from .attribution import vjp as vjp
from .auditing import audit as audit
from .bottleneck import iba as iba
from .concepts import tcav as tcav
from .graph.reading import Reading as Reading
from .graph.reading import read as read
from .matrices import chain as chain
from .matrices import matrix as matrix
from .planning.plans import plan as plan
from .report import plots as plots

__version__: str
