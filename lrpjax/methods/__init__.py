"""Every method of attribution as a value, by its name."""

# Imported in the order of the table: each family lists its methods in it.
# ruff: noqa: I001
from .backprop import deconv as deconv
from .backprop import gradient as gradient
from .backprop import guided_bp as guided_bp
from .backprop import input_x_gradient as input_x_gradient
from .backprop import rect_grad as rect_grad
from .lrp import alpha_beta as alpha_beta
from .lrp import cmp_alpha_beta as cmp_alpha_beta
from .lrp import deep_taylor as deep_taylor
from .lrp import epsilon as epsilon
from .lrp import epsilon_gamma_box as epsilon_gamma_box
from .lrp import epsilon_plus_flat as epsilon_plus_flat
from .lrp import excitation_bp as excitation_bp
from .lrp import flat as flat
from .lrp import gamma as gamma
from .lrp import wsquare as wsquare
from .lrp import z as z
from .lrp import zplus as zplus
from ..patterns.methods import pattern_attribution as pattern_attribution
from ..patterns.methods import pattern_net as pattern_net
from .deeplift import deeplift_ablation as deeplift_ablation
from .deeplift import deeplift_rescale as deeplift_rescale
from .deeplift import deeplift_reveal_cancel as deeplift_reveal_cancel
from .contrastive import contrastive_excitation_bp as contrastive_excitation_bp
from .contrastive import contrastive_lrp as contrastive_lrp
from .path import integrated_gradients as integrated_gradients
from .smooth import smooth_grad as smooth_grad
from .windows import occlusion as occlusion
from .information import iba as iba
from ..propagation.entries import TABLE as TABLE
from ..propagation.method import Method as Method
from .estimator import Estimator as Estimator
from ..propagation.explainer import Explainer as Explainer
from .lookup import get as get
from .lookup import resolve as resolve
from .lookup import resolve_chain as resolve_chain
from .lookup import table as table


# The functions of the table, each once, and how to get a method.
_MAKERS = [entry.make for entry in TABLE.values()]
__all__ = sorted({"Method", "get", "table"} | {getattr(f, "func", f).__name__ for f in _MAKERS})


def __dir__() -> list[str]:
    return __all__
