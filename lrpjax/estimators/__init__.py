"""Methods that combine many maps or outputs: they explain a target but are no chain of rules."""

from .contrastive import Contrastive as Contrastive
from .estimator import Estimator as Estimator
from .occlusion import Occlusion as Occlusion
from .path import IntegratedGradients as IntegratedGradients
from .smooth import SmoothGrad as SmoothGrad
from .smooth import noise as noise
