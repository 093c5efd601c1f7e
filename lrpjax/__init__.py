"""Modified-backpropagation attributions for any JAX model, and whether to trust them.

What is here is named in `__init__.pyi`, and loaded when it is first used.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
