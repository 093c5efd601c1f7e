"""Modified-backpropagation attributions for any JAX model, and whether to trust them.

What is here is named in `__init__.pyi`, and loaded when it is first used. The rooms of the house:
each imports those below it, never one above.

    cli          one file a command
    report       figures of results, and the page of an audit
    auditing     audit: what is measured of each method, the verdicts, the result
    convergence  csc, singular values, growth, certificate, profile, simulation
    sanity       randomisation of parameters, other classes, sums of maps
    concepts     tcav
    attribution  vjp, attribute
    matrices     matrix, chain
    planning     plan, the claims of a reading, the ledger of relevance
    methods      one file a family; by name in lookup
    bottleneck   IBA: the information that passes a layer
    images       pictures and arrays from files, as a person sees them
    models       VGG, ResNet, the bundled network, files of weights
    patterns     PatternNet: patterns that are fitted, and the methods that take them
    propagation  a chain of rules at work, and what explains
    composites   which rule stands where
    rules        one function a rule
    layers       a layer at work
    graph        the named layers of a program; reading a model
    program      the equations of a model, and the axes of its values
    _base        what all of them stand on

Where a thing goes: a primitive is a row in program/primitives.py, a kind of layer a row in
graph/kinds.py, a rule a function in rules/, a method a function in methods/<family>.py.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
