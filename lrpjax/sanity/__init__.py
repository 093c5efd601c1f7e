"""Sanity checks of saliency maps: do they change with the parameters, and with the class?"""

from .conservation import conservation as conservation
from .controls import CONTROLS as CONTROLS
from .controls import Control as Control
from .pictures import Cascade as Cascade
from .pictures import TwoClasses as TwoClasses
from .pictures import cascade as cascade
from .pictures import two_classes as two_classes
from .random_logit import random_logit as random_logit
from .randomisation import efficient_mprt as efficient_mprt
from .randomisation import mprt as mprt
from .randomisation import smooth_mprt as smooth_mprt
from .result import Sanity as Sanity
from .similarity import SIMILARITIES as SIMILARITIES
from .similarity import reduced as reduced
