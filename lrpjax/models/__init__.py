"""Networks in `flax.nnx` with trained weights, and the images that ship with them."""

from .cifar10 import Cifar10 as Cifar10
from .cifar10 import cifar10 as cifar10
from .weights import load_weights as load_weights
from .weights import save_weights as save_weights
