"""Pictures and arrays from files, as a person sees them.

A file goes through `modes` (its kind of pixels), `levels` (what is black and white), EXIF, the
background, and `sizes`; `arrays` reads what is no picture, `finding` says which files there are.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
