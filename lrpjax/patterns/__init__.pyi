from . import rules as rules
from .fit import Patterns as Patterns
from .fit import fit as fit
from .fit import load as load
