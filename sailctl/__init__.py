"""sailctl: online alignment from trajectory preferences, on MuJoCo."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from sailctl.policy import GaussianPolicy

__version__ = "0.1.0"

__all__ = ["__version__", "load_policy"]


def load_policy(run: str | Path) -> GaussianPolicy:
    """The policy of a finished run (or of a folder with ``policy.json``), ready for ``predict(obs)``.

    Raises:
        UserError: when there is no readable policy in ``run``.
    """
    from sailctl.checkpoint import load_policy as load

    return load(run)
