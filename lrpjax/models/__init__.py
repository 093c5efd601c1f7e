"""Networks in `flax.nnx` with trained weights, and the images that ship with them."""

from .cifar10 import Cifar10 as Cifar10
from .cifar10 import cifar10 as cifar10
from .resnet import ResNet as ResNet
from .resnet import resnet18 as resnet18
from .resnet import resnet34 as resnet34
from .resnet import resnet50 as resnet50
from .resnet import resnet101 as resnet101
from .vgg import VGG as VGG
from .vgg import vgg11 as vgg11
from .vgg import vgg13 as vgg13
from .vgg import vgg16 as vgg16
from .vgg import vgg19 as vgg19
from .weights import load_weights as load_weights
from .weights import save_weights as save_weights
