from .result import Audit as Audit
from .run import PAPER as PAPER
from .run import audit as audit
from .verdict import Thresholds as Thresholds
from .verdict import Verdict as Verdict
