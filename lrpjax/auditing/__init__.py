"""An audit of saliency methods on one model: may their maps be trusted?"""

from .audit import PAPER as PAPER
from .audit import audit as audit
from .result import Audit as Audit
from .verdict import Thresholds as Thresholds
from .verdict import Verdict as Verdict
