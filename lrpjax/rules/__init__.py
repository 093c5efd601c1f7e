"""Rules: how the relevance of a layer's output becomes that of its input.

A rule is `rule(function, **parameters)`, and `known` says its `Facts`. The functions, by the layers
they are for:

* linear layers (conv, dense, scale): z, epsilon, gamma, zplus, alpha_beta, flat, wsquare, zbox
* sums, means and average pools: input_times_gradient, positive_share
* factors without a shift: one_to_one
* what only moves values: moved
* max-pooling: winner_takes_all, proportional
* activations: pass_, guided, deconv, rect
* additions of two values: add_copy, add_signed, add_alpha_beta
* products of two values, norms, softmax: product, pass_value, softmax_taylor
* anything: gradient

`table()` lists what is covered; `register` covers one more primitive.

DeepLIFT (`rules.deeplift`) and the pattern methods (`rules.patterns`) have rules of their own.
"""

from . import deeplift as deeplift
from . import patterns as patterns
from .attention import pass_value as pass_value
from .attention import product as product
from .attention import softmax_taylor as softmax_taylor
from .linear import alpha_beta as alpha_beta
from .linear import epsilon as epsilon
from .linear import flat as flat
from .linear import gamma as gamma
from .linear import negated as negated
from .linear import wsquare as wsquare
from .linear import z as z
from .linear import zbox as zbox
from .linear import zplus as zplus
from .passing import add_alpha_beta as add_alpha_beta
from .passing import add_copy as add_copy
from .passing import add_signed as add_signed
from .passing import deconv as deconv
from .passing import gradient as gradient
from .passing import guided as guided
from .passing import input_times_gradient as input_times_gradient
from .passing import moved as moved
from .passing import nothing as nothing
from .passing import one_to_one as one_to_one
from .passing import pass_ as pass_
from .passing import positive_share as positive_share
from .passing import rect as rect
from .pooling import proportional as proportional
from .pooling import winner_takes_all as winner_takes_all
from .registry import coverage as coverage
from .registry import register as register
from .registry import table as table
from .rule import Account as Account
from .rule import Facts as Facts
from .rule import Rule as Rule
from .rule import known as known
from .rule import rule as rule
