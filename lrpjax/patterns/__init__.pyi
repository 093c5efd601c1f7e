from .fitting import Patterns as Patterns
from .fitting import fit as fit
from .fitting import load as load
