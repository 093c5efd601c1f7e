"""Patterns of neurons, and the methods and spectra that take them (Kindermans et al. 2018)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
