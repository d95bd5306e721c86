"""The figure of robustness: six panels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from benchmarks.theory.figures import BLACK, BLUE, GREEN, ORANGE, PINK, panels
from benchmarks.theory.robust.convexity import BALLS
from benchmarks.theory.robust.loss import KINKS, STUDIED
from benchmarks.theory.robust.stationarity import HORIZONS, STEP_HORIZON
from benchmarks.theory.robust.worst_case import PROBLEMS

SHADES = dict(zip(KINKS, (BLUE, GREEN, ORANGE), strict=True))


def draw(tables: dict[str, pd.DataFrame], path: Path) -> None:
    """Six panels, in the order of the records."""
    with panels(path, 2, 3, (4.0, 3.3)) as (_, axes):
        draw_worst_case(axes[0, 0], tables["theory_robust_worst_case"])
        draw_freezing(axes[0, 1], tables["theory_robust_freezing"])
        draw_convexity(axes[0, 2], tables["theory_robust_convexity"])
        draw_stationarity(axes[1, 0], tables["theory_robust_stationarity"])
        draw_step_sizes(axes[1, 1], tables["theory_robust_step_sizes"])
        draw_linearity(axes[1, 2], tables["theory_robust_linearity"])


def draw_worst_case(axes: Axes, worst: pd.DataFrame) -> None:
    """Largest error of each formula."""
    for formula, quality, column, colour, label in (
        ("around labels", 2.0, "error_max", PINK, "clipped around drawn labels"),
        ("exact", 2.0, "error_max", ORANGE, "$\\rho$ |h|, extreme teachers"),
        ("exact", 0.3, "error_max_non_degenerate", BLUE, "$\\rho$ |h|, $\\rho \\leq$ min(P*, 1 $-$ P*)"),
        ("clipped", 2.0, "error_max", GREEN, "clipped around P*, extreme teachers"),
    ):
        here = worst[(worst["formula"] == formula) & (worst["quality"] == quality)]
        axes.semilogy(here["rho"], here[column], color=colour, marker="o", ms=3, label=label)
    axes.set_ylim(1e-17, 1e8)
    axes.set(
        title=f"Worst case: {PROBLEMS} random problems",
        xlabel="$\\rho$",
        ylabel="largest error of the robust loss",
    )
    axes.legend(loc="upper left")


def draw_sets(sets: pd.DataFrame, path: Path) -> None:
    """What a pair is charged by each set of teachers, and the preference that is left of it."""
    shapes = (("exact", ORANGE, "o"), ("clipped", GREEN, "s"), ("contaminated", BLUE, "^"))
    labels = {
        "exact": "|P $-$ P*| $\\leq$ $\\rho$",
        "clipped": "the same, P within [0, 1]",
        "contaminated": "share $\\rho$ of arbitrary answers",
    }
    rho = sets["rho"].iloc[0]
    with panels(path, 1, 2, (4.2, 3.3)) as (_, axes):
        for name, colour, marker in shapes:
            here = sets[sets["set"] == name]
            axes[0, 0].plot(here["chance"], here["cost"], color=colour, label=labels[name])
            axes[0, 0].plot(here["chance"], here["searched"], color=colour, marker=marker, ms=3, ls="")
            better = here[here["chance"] >= 0.5]
            axes[0, 1].plot(better["chance"], better["predicted"], color=colour, label=labels[name])
            axes[0, 1].plot(better["chance"], better["best"], color=colour, marker=marker, ms=3, ls="")
        axes[0, 1].plot([0.5, 1], [0.5, 1], color=BLACK, lw=0.8, label="P*: no adversary")
        axes[0, 0].set_ylim(0, 1.5 * rho)
        axes[0, 0].set(
            title=f"Cost of a pair, $\\rho$ = {rho:g} (marks: searched)",
            xlabel="P* of the answer that h favours",
            ylabel="cost / |h|",
        )
        axes[0, 1].set(
            title="Preference at the best score (marks: searched)",
            xlabel="P* of the better answer",
            ylabel="$\\sigma(h)$",
        )
        for one in axes[0]:
            one.legend(loc="upper left")


def draw_freezing(axes: Axes, freezing: pd.DataFrame) -> None:
    """Where the reference becomes stationary, against the range in which the formula is exact."""
    for quality, colour in zip((0.3, 0.7, 2.0), (BLUE, GREEN, ORANGE), strict=True):
        here = freezing[freezing["quality"] == quality]
        axes.plot(
            here["room"],
            here["freezes_at"],
            color=colour,
            marker="o",
            ms=4,
            ls="",
            label=f"quality of scale {quality:g}",
        )
    axes.plot([0, 0.4], [0, 0.4], color=BLACK, lw=0.8, label="below: frozen while exact")
    axes.set_ylim(0, 0.6)
    axes.set(
        title="The least $\\rho$ at which the reference is stationary",
        xlabel="largest $\\rho$ with an exact formula",
        ylabel="$\\rho$",
    )
    axes.legend(loc="upper center", ncols=2)


def draw_convexity(axes: Axes, convexity: pd.DataFrame) -> None:
    """m over the radius."""
    for (rho, here), colour in zip(convexity.groupby("rho"), (BLACK, *SHADES.values()), strict=True):
        axes.semilogx(here["radius"], here["m"], color=colour, marker="o", ms=3, label=f"$\\rho$ = {rho:g}")
    axes.set_xticks(BALLS, [f"{radius:g}" for radius in BALLS])
    axes.minorticks_off()
    axes.set_ylim(0, 1.15)
    axes.set(
        title=f"Weak convexity, problem {STUDIED}",
        xlabel="radius of the ball",
        ylabel="m: L$_\\rho$ + m/2 |$\\theta$|$^2$ is convex",
    )
    axes.legend(ncols=2, loc="upper left")


def draw_stationarity(axes: Axes, runs: pd.DataFrame) -> None:
    """Mean squared gradient of the Moreau envelope over the samples of a run."""
    for rho, where in KINKS.items():
        for variant, marker, style in (("composite", "o", "-"), ("subgradient", "x", "--")):
            here = runs[(runs["rho"] == rho) & (runs["variant"] == variant)]
            axes.loglog(
                here["samples"],
                here["mean_square"],
                color=SHADES[rho],
                marker=marker,
                ms=4,
                lw=0.8,
                ls=style,
                label=f"$\\rho$ = {rho:g}, {where}" if variant == "composite" else None,
            )
    axes.plot([], [], color=BLACK, marker="x", ms=4, lw=0.8, ls="--", label="subgradient steps instead")
    guide = np.array(HORIZONS, dtype=float)
    axes.loglog(guide, 0.5 / np.sqrt(guide), color=BLACK, lw=0.8, label="$1/\\sqrt{T}$")
    axes.set_ylim(top=0.6)
    axes.set(
        title="Composite updates: stationarity of a random iterate",
        xlabel="T, samples of the run",
        ylabel="squared gradient of the envelope",
    )
    axes.legend(loc="upper right")


def draw_step_sizes(axes: Axes, steps: pd.DataFrame) -> None:
    """Stationarity over the step size."""
    for variant, colour, marker in (("composite", BLUE, "o"), ("subgradient", ORANGE, "x")):
        here = steps[steps["variant"] == variant]
        mean = here["mean_square"]
        axes.errorbar(
            here["step"],
            mean,
            yerr=[mean - here["mean_square_low"], here["mean_square_high"] - mean],
            color=colour,
            marker=marker,
            ms=4,
            lw=0.9,
            label=variant,
        )
    axes.set(
        xscale="log",
        yscale="log",
        title=f"T = {STEP_HORIZON}, $\\rho$ = {steps['rho'].iloc[0]:g}: other step sizes",
        xlabel="step size",
        ylabel="squared gradient of the envelope",
    )
    axes.legend()


def draw_linearity(axes: Axes, linearity: pd.DataFrame) -> None:
    """Distance of the prox-linear step from the exact proximal point."""
    for length, colour in ((2, BLUE), (3, GREEN), (4, ORANGE)):
        here = linearity[linearity["H"] == length]
        axes.loglog(
            here["weight"], here["distance_median"], color=colour, marker="o", ms=3, label=f"H = {length}"
        )
        axes.loglog(here["weight"], here["distance_max"], color=colour, ls=":")
    axes.plot([], [], color=BLACK, ls=":", label="largest of 200 pairs")
    axes.plot([], [], ls="", label="H = 1: equal to rounding")
    axes.set(
        title="Control: is the prox-linear step the proximal one?",
        xlabel="step size times $\\rho$",
        ylabel="distance / length of the step",
    )
    axes.legend(loc="lower right")
