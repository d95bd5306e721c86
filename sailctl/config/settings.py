"""A field of a dataclass of settings: its default and what it means, which is shown to users."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def setting(default: Any, meaning: str) -> Any:
    """A field with a default. A list is copied for each object."""
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata={"meaning": meaning})
    return field(default=default, metadata={"meaning": meaning})


def needed(meaning: str) -> Any:
    """A field that has no default: a file of ``conf`` or the command line gives it a value."""
    return field(metadata={"meaning": meaning})
