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
    from sailctl.core.types import PreferenceData
    from sailctl.data.datasets import from_arrays, load_preferences, save_preferences
    from sailctl.runs.checkpoint import load_policy
else:
    _HOMES = {
        "PreferenceData": "sailctl.core.types",
        "from_arrays": "sailctl.data.datasets",
        "load_policy": "sailctl.runs.checkpoint",
        "load_preferences": "sailctl.data.datasets",
        "save_preferences": "sailctl.data.datasets",
    }

    def __getattr__(name: str) -> object:
        """Import what is asked for when it is first used: ``sailctl --help`` need not wait for it."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
