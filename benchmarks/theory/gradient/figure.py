"""The figure of the gradient: six panels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from benchmarks.theory.figures import BLACK, BLUE, GREEN, ORANGE, PINK, YELLOW, panels
from benchmarks.theory.gradient.quadrature import LENGTHS, NODES
from benchmarks.theory.gradient.responses import BETAS


def draw(biases: pd.DataFrame, ends: pd.DataFrame, path: Path) -> None:
    """Six panels: the bias, what it does to where ascent stops, and the same in control."""
    with panels(path, 2, 3, (3.7, 3.1)) as (_, axes):
        responses = biases[biases["part"] == "responses"]
        for beta, colour in zip(BETAS, (BLUE, ORANGE, GREEN, PINK), strict=True):
            here = responses[responses["setting"] == f"beta={beta}"]
            axes[0, 0].plot(
                here["c"], here["cosine_median"], color=colour, label=f"$\\beta$ = {beta}, median"
            )
            axes[0, 0].plot(here["c"], here["cosine_q05"], color=colour, ls=":")
            axes[0, 1].plot(
                here["c"], here["share_downhill"], color=colour, marker="o", ms=3, label=f"$\\beta$ = {beta}"
            )
        axes[0, 0].plot([], [], color=BLACK, ls=":", label="worst 5%")
        axes[0, 0].set(title="Responses: angle to grad J", xlabel="c", ylabel="cosine(T1 + c T2, grad J)")
        axes[0, 0].legend(loc="lower right")
        axes[0, 1].set(title="Points where T1 + c T2 leads down", xlabel="c", ylabel="share of problems")
        axes[0, 1].set_ylim(bottom=0)
        axes[0, 1].legend()

        for setting, colour, place in (
            ("every policy", BLUE, axes[0, 2]),
            ("few policies", ORANGE, axes[0, 2]),
            ("control", BLUE, axes[1, 2]),
        ):
            trade_off(place, ends[ends["setting"] == setting], colour, setting)
        axes[0, 2].set_title("Responses: where the flow of T1 + c T2 stops")
        axes[0, 2].legend(loc="upper left")
        axes[1, 2].set_title("Control: where the flow of T1 + c T2 stops")

        shades = ((0.0, ORANGE), (0.3, YELLOW), (1.0, BLUE))
        refined = biases[biases["part"] == "quadrature"]
        for c, colour in shades:
            errors = refined.loc[refined["c"] == c, "relative_error_max"]
            axes[1, 0].semilogy(NODES, errors, color=colour, marker="o", ms=3, label=f"c = {c}")
        axes[1, 0].set(
            title="Control, H = L = 2: distance to grad J",
            xlabel="quadrature nodes for each action",
            ylabel="relative error of T1 + c T2",
        )
        axes[1, 0].legend(loc="center right")

        names = [f"H={segment} L={judged}" for segment, judged, _ in LENGTHS]
        control = biases[biases["part"] == "control"].set_index(["c", "setting"])["relative_error_median"]
        for shift, (c, colour) in enumerate(shades):
            places = np.arange(len(names)) + (shift - 1) * 0.27
            axes[1, 1].bar(places, control.loc[c].loc[names], 0.27, color=colour, label=f"c = {c}")
        axes[1, 1].set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names])
        axes[1, 1].set(
            title="Control: a teacher that judges on, L > H", ylabel="relative error of T1 + c T2, median"
        )
        axes[1, 1].legend()


def trade_off(axes: Axes, ends: pd.DataFrame, colour: str, label: str) -> None:
    """J against the alignment value, for c from 0 to 1. Labels name both ends."""
    axes.plot(ends["alignment_gain"], ends["J"], color=colour, marker="o", ms=3, label=label)
    for c in (0.0, 1.0):
        row = ends[ends["c"] == c].iloc[0]
        axes.annotate(
            f"c = {c:.0f}", (row["alignment_gain"], row["J"]), textcoords="offset points", xytext=(5, 4)
        )
    axes.set(xlabel="gain in E[quality] $-$ $\\beta$ KL($\\pi$ || ref)", ylabel="J")
    axes.margins(0.2)
