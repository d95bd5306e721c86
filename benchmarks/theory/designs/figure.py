"""The figure of the designs: two maps for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh

from benchmarks.record import Row
from benchmarks.theory.designs.maps import COEFFICIENTS, WEIGHTS
from benchmarks.theory.designs.mixture import DESIGNS
from benchmarks.theory.figures import BLACK, DIVERGING, panels

AUTHORS = {"DDP": (0.4, 0.2), "DPP": (0.3, 0.2), "DPR": (0.3, 0.3), "DPR, reward model": (0.3, 0.3)}
"""(w, c) that the authors of SAIL used with language models."""


def draw(rows: Sequence[Row], path: Path) -> None:
    """One map for each design: win rate above, alignment value below."""
    table = pd.DataFrame(rows)
    measures = {
        "win_rate_over_offline": ("win rate minus offline DPO's, in points", 100.0, "{:+.1f}"),
        "alignment_gain_over_offline": (r"E[quality] $-$ $\beta$ KL minus offline DPO's", 1.0, "{:+.2f}"),
    }
    with panels(path, 2, len(DESIGNS), (3.3, 2.8)) as (figure, axes):
        for row, (name, (label, scale, form)) in enumerate(measures.items()):
            limit = scale * float(table[name].abs().max())
            for column, design in enumerate(DESIGNS):
                place = axes[row, column]
                here = table[table["design"] == design].pivot(index="c", columns="w", values=name)
                mesh = gain_map(place, scale * here, limit, form)
                w, c = AUTHORS[design]
                corner = (WEIGHTS.index(w) + 0.85, COEFFICIENTS.index(c) + 0.82)
                place.plot(*corner, color=BLACK, marker="*", ms=5, ls="")
                place.set_title(design if row + column else f"{design} (star: the authors' w and c)")
            figure.colorbar(mesh, ax=axes[row, -1], label=label)
        for place in axes[-1]:
            place.set_xlabel("w, weight of the design")
        for place in axes[:, 0]:
            place.set_ylabel("c, weight of T2 and T3")


def gain_map(axes: Axes, gains: pd.DataFrame, limit: float, form: str) -> QuadMesh:
    """Coloured cells with their numbers."""
    axes.grid(visible=False)
    values = gains.to_numpy()
    mesh = axes.pcolormesh(values, cmap=DIVERGING, vmin=-limit, vmax=limit)
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if abs(value) > 0.6 * limit else BLACK
        axes.text(
            column + 0.5, row + 0.5, form.format(value), ha="center", va="center", fontsize=7, color=colour
        )
    axes.set_xticks(np.arange(len(gains.columns)) + 0.5, [f"{w:g}" for w in gains.columns])
    axes.set_yticks(np.arange(len(gains.index)) + 0.5, [f"{c:g}" for c in gains.index])
    return mesh
