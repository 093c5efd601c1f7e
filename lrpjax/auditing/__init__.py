"""An audit of saliency methods on one model: may their maps be trusted?"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
