"""A layer at work: as a function of its inputs, with its weights or with parts of them."""

from .intervals import Bound as Bound
from .intervals import Bounds as Bounds
from .ops import Linear as Linear
from .ops import Op as Op
from .ops import bare as bare
from .ops import bare_product as bare_product
from .ops import factor as factor
from .ops import make_linear as make_linear
from .ops import make_op as make_op
from .ops import scaled as scaled
from .ops import tupled as tupled
from .ops import weighed as weighed
