"""The figure of the critic form: six panels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from benchmarks.theory.critic.errors import RADIUS
from benchmarks.theory.figures import BLACK, BLUE, GREEN, ORANGE, panels

SHADES = {0.03: GREEN, 0.1: BLUE, 0.3: ORANGE}
ARMS = {
    "sail": (GREEN, "SAIL, beta 0.3"),
    "sail_revkl": (ORANGE, "SAIL-RevKL, beta 0.3, gamma 0.1"),
    "sail_equal_beta": (BLUE, "SAIL, equal beta_eff"),
}


def draw(tables: dict[str, pd.DataFrame], path: Path) -> None:
    """Noise of the forms, first order, where the effective beta holds, and the errors of the value."""
    with panels(path, 2, 3, (3.9, 3.1)) as (_, axes):
        draw_noise(axes[0, 0], tables["theory_critic_gradients"])
        draw_first_order(axes[0, 1], tables["theory_critic_first_order"])
        draw_effective(axes[0, 2], tables["theory_critic_effective"])
        errors = tables["theory_critic_errors"]
        for place, column, title in (
            (axes[1, 0], "gain_mean", "True value gained by ascent"),
            (axes[1, 1], "kl_median", "KL to the reference where it stops (nats)"),
            (axes[1, 2], "left", f"Share that ends farther than {RADIUS:g} from it"),
        ):
            draw_errors(place, errors, column, title)
        axes[1, 0].legend(loc="lower left")
        axes[1, 0].axhline(0, color=BLACK, lw=0.8)
        axes[1, 1].set_yscale("log")


def draw_noise(axes: Axes, gradients: pd.DataFrame) -> None:
    """Deviation of one sampled pair."""
    for c, style in ((0.0, "-"), (0.3, "--"), (1.0, ":")):
        here = gradients[gradients["c"] == c]
        for form, colour in (("pathwise", BLUE), ("score", ORANGE)):
            axes.loglog(here["tau"], here[f"noise_{form}"], color=colour, ls=style, marker="o", ms=3)
        axes.plot([], [], color=BLACK, ls=style, label=f"c = {c:g}")
    for form, colour in (("pathwise", BLUE), ("score", ORANGE)):
        axes.plot([], [], color=colour, label=form)
    axes.set(
        title="Noise of one pair / length of the gradient", xlabel="temperature of the labels", ylabel="ratio"
    )
    axes.set_ylim(top=2000)
    axes.legend(ncols=2, loc="upper left")


def draw_first_order(axes: Axes, rows: pd.DataFrame) -> None:
    """Error of the first-order formula."""
    axes.loglog(rows["scale"], rows["error_median"], color=BLUE, marker="o", ms=3, label="median")
    axes.loglog(rows["scale"], rows["error_max"], color=BLUE, ls=":", label="largest")
    guide = np.array(rows["scale"][:4])
    axes.loglog(guide, guide**2 * rows["error_median"][2] * 30, color=BLACK, lw=0.8, label="scale squared")
    axes.set(
        title="T1 to first order",
        xlabel="scale of h and of Q / tau",
        ylabel="relative error",
    )
    axes.legend()


def draw_effective(axes: Axes, rows: pd.DataFrame) -> None:
    """Where SAIL-RevKL and SAIL at equal beta_eff stop."""
    for gamma, colour in SHADES.items():
        here = rows[rows["gamma"] == gamma]
        axes.loglog(
            here["kl_revkl"],
            here["kl_equal_beta"],
            color=colour,
            marker="o",
            ms=3,
            label=f"gamma = {gamma:g}",
        )
    ends = [rows["kl_revkl"].min(), rows["kl_equal_beta"].max()]
    axes.loglog(ends, ends, color=BLACK, lw=0.8, label="equal")
    axes.set(
        title="KL where each stops, from soft to sharp labels",
        xlabel="SAIL-RevKL (nats)",
        ylabel="SAIL at equal beta_eff (nats)",
    )
    axes.legend()


def draw_errors(axes: Axes, rows: pd.DataFrame, column: str, title: str) -> None:
    """One measure against the size of the error."""
    sizes = sorted(rows["error"].unique())
    for name, (colour, label) in ARMS.items():
        here = rows[rows["algorithm"] == name]
        axes.plot(range(len(sizes)), here[column], color=colour, marker="o", ms=3, label=label)
    axes.set_xticks(range(len(sizes)), [f"{size:g}" for size in sizes])
    axes.set(title=title, xlabel="error of Q / deviation of Q")
