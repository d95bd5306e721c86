"""The launchers of ``sailctl.sweeps.cluster``, in the package where Hydra looks for launchers.

That package is shared with every other plugin of Hydra, and has no ``__init__.py``. This file is so short
because an editable install holds a copy of it.
"""

from __future__ import annotations

from sailctl.sweeps import cluster


class SlurmLauncher(cluster.SlurmLauncher):
    """One job of SLURM for each run, all in one array."""


class LocalLauncher(cluster.LocalLauncher):
    """One process of this machine for each run, all at once."""
