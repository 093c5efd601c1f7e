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

DeepLIFT (`rules.deeplift`) and patterns (`rules.patterns`) have rules of their own.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
