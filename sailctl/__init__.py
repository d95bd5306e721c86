"""sailctl: online alignment from trajectory preferences, on MuJoCo."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "PreferenceData",
    "__version__",
    "from_arrays",
    "load_policy",
    "load_preferences",
    "save_preferences",
]

if TYPE_CHECKING:
    from sailctl.checkpoint import load_policy
    from sailctl.data import from_arrays, load_preferences, save_preferences
    from sailctl.types import PreferenceData
else:
    _HOMES = {
        "PreferenceData": "sailctl.types",
        "from_arrays": "sailctl.data",
        "load_policy": "sailctl.checkpoint",
        "load_preferences": "sailctl.data",
        "save_preferences": "sailctl.data",
    }

    def __getattr__(name: str) -> object:
        """Import what is asked for when it is first used: ``sailctl --help`` need not wait for it."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
