"""The kinds of algorithm, found by being in a file here and named in no list (``RunConfig``)."""

from importlib import import_module
from pkgutil import iter_modules

for file in iter_modules(__path__):
    import_module(f"{__name__}.{file.name}")
