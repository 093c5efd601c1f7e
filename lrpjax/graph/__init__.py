"""A program becomes a chain of named layers. Knows nothing of relevance."""

from .coverage import covered as covered
from .decisions import decision as decision
from .ends import ending as ending
from .fold import shifts as shifts
from .kinds import COMPUTING as COMPUTING
from .kinds import KINDS as KINDS
from .kinds import LINEAR as LINEAR
from .known import CUTTING as CUTTING
from .layer import Layer as Layer
from .layers import Graph as Graph
from .registry import REGISTERED as REGISTERED
