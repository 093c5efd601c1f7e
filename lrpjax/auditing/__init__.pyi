from .audits import PAPER as PAPER
from .audits import audit as audit
from .result import Audit as Audit
from .verdict import Thresholds as Thresholds
from .verdict import Verdict as Verdict
