"""The figure of convergence: six panels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from benchmarks.theory.convergence.cases import PROBLEMS
from benchmarks.theory.convergence.objectives import ARMS, GAMMA, PAPER, SAMPLED
from benchmarks.theory.convergence.paths import RESOLVED, Studied
from benchmarks.theory.figures import BLACK, BLUE, GREEN, ORANGE, PINK, SKY, YELLOW, panels
from sailctl.core.types import DoubleArray

COLOURS = {"sail": ORANGE, "kl_ref_pi": BLUE, "kl_pi_ref": GREEN}
NAMES = {"sail": "J (SAIL)", "kl_ref_pi": "KL(ref || $\\pi$)", "kl_pi_ref": "KL($\\pi$ || ref)"}
STYLES = {"reference": "-", "saddle": "--", "plateau": ":"}


def name_of(arm: tuple[str, float]) -> str:
    """An objective in a legend."""
    return NAMES[arm[0]] if arm[1] == 0 else f"J $-$ {arm[1]:g} {NAMES[arm[0]]}"


def draw(
    studied: Sequence[Studied],
    paths: pd.DataFrame,
    noise: pd.DataFrame,
    curves: DoubleArray,
    samples: pd.DataFrame,
    bias: pd.DataFrame,
    path: Path,
) -> None:
    """Six panels, in the order of the records."""
    with panels(path, 2, 3, (4.0, 3.3)) as (_, axes):
        draw_paths(axes[0, 0], [known for known in studied if known.case.seed == PROBLEMS[0]])
        draw_constants(axes[0, 1], paths)
        draw_noise(axes[0, 2], noise[noise["problem"] == PROBLEMS[0]], curves)
        draw_samples(axes[1, 0], samples[samples["problem"] == PROBLEMS[0]])
        draw_censored(axes[1, 1], samples)
        draw_bias(axes[1, 2], bias[bias["direction"] == "kl_ref_pi"])


def draw_paths(axes: Axes, studied: Sequence[Studied]) -> None:
    """The gap along exact ascent."""
    for known in studied:
        for index, (objective, _) in enumerate(SAMPLED):
            gap = known.trace.gap[:, index]
            gap = gap[gap > RESOLVED][:80]
            axes.semilogy(gap, color=COLOURS[objective], ls=STYLES[known.case.name], lw=1.2)
    for arm in SAMPLED:
        axes.plot([], [], color=COLOURS[arm[0]], label=name_of(arm))
    for name, style in STYLES.items():
        axes.plot([], [], color=BLACK, ls=style, label=f"from the {name}")
    axes.set(
        title=f"Exact ascent, problem {PROBLEMS[0]}", xlabel="iterations", ylabel="gap to the global maximum"
    )
    axes.set_ylim(RESOLVED, 1e6)
    axes.legend(ncols=2, loc="upper center")


def draw_constants(axes: Axes, paths: pd.DataFrame) -> None:
    """mu along every path. Values below the axis are drawn on it."""
    for shift, arm in enumerate(ARMS):
        here = paths[(paths["objective"] == arm[0]) & (paths["gamma"] == arm[1])]
        axes.semilogy(
            here["start"].map(list(STYLES).index) + (shift - 2.5) * 0.14,
            here["mu_path"].clip(lower=RESOLVED),
            color=COLOURS[arm[0]],
            ls="",
            marker="^" if arm[1] > GAMMA else "v" if 0 < arm[1] < GAMMA else "o",
            ms=4,
            label=name_of(arm),
        )
    axes.set_xticks(range(len(STYLES)), [f"from the\n{name}" for name in STYLES])
    axes.set_ylim(RESOLVED / 3, 1e4)
    axes.set(
        title="PL constant along exact ascent, three problems", ylabel="$\\mu$ (at $10^{-12}$: that or less)"
    )
    axes.legend(ncols=2, loc="upper center")


def draw_noise(axes: Axes, noise: pd.DataFrame, curves: DoubleArray) -> None:
    """Mean gap of stochastic ascent with constant steps, and the predicted noise ball."""
    steps = 10 * np.arange(len(curves))
    for index, colour in enumerate((ORANGE, YELLOW, GREEN, BLUE, PINK)):
        row = noise.iloc[index]
        axes.semilogy(steps, curves[:, index], color=colour, lw=0.9, label=f"step {row['step']:g}")
        axes.axhline(row["predicted"], color=colour, ls=":")
    axes.plot([], [], color=BLACK, ls=":", label="step $\\cdot$ tr C / 4 per batch")
    axes.set_xlim(0, 1500)
    axes.set(
        title=f"Stochastic ascent with {NAMES['kl_ref_pi']}, problem {PROBLEMS[0]}",
        xlabel="steps",
        ylabel="gap, mean over seeds",
    )
    axes.legend()


def draw_samples(axes: Axes, samples: pd.DataFrame) -> None:
    """Samples to reach eps, with the near-linear law through the smallest eps."""
    for name, label, start, colour in (
        ("kl_ref_pi", name_of(ARMS[PAPER]), "reference", BLUE),
        ("kl_ref_pi", name_of(ARMS[PAPER]), "plateau", SKY),
        ("sail", NAMES["sail"], "reference", ORANGE),
    ):
        here = samples[
            (samples["objective"] == name) & (samples["start"] == start) & (samples["schedule"] == "constant")
        ]
        eps = here["eps"].to_numpy()
        axes.loglog(eps, here["samples"], color=colour, marker="o", ms=4, ls="", label=f"{label}, {start}")
        law = np.log(2 * here["gap_start"].to_numpy() / eps) / eps
        axes.loglog(eps, law * here["samples"].iloc[-1] / law[-1], color=colour, lw=0.9)
    axes.plot([], [], color=BLACK, lw=0.9, label="(1/$\\epsilon$) log(2 gap$_0$/$\\epsilon$)")
    axes.invert_xaxis()
    axes.set(
        title=f"Samples until the mean gap is $\\epsilon$, problem {PROBLEMS[0]}",
        xlabel="$\\epsilon$",
        ylabel="samples",
    )
    axes.legend()


def draw_censored(axes: Axes, samples: pd.DataFrame) -> None:
    """Share of runs that reach the smallest eps within the budget."""
    here = samples[(samples["eps"] == samples["eps"].min()) & (samples["schedule"] == "constant")]
    cases = list(dict.fromkeys(zip(here["problem"], here["start"], strict=True)))
    for shift, arm in enumerate(SAMPLED):
        share = 1 - here.loc[here["objective"] == arm[0], "censored"].to_numpy()
        places = np.arange(len(cases)) + (shift - 1) * 0.27
        bars = axes.bar(places, share, 0.27, color=COLOURS[arm[0]], label=name_of(arm))
        axes.bar_label(bars, fmt="%.2g", fontsize=7)
    axes.set_xticks(range(len(cases)), [f"problem {seed}\n{start}" for seed, start in cases])
    axes.tick_params(axis="x", labelsize=7)
    axes.set_ylim(0, 1.5)
    axes.set(title="Runs that come to the smallest $\\epsilon$ in the budget", ylabel="share")
    axes.legend(loc="upper center")


def draw_bias(axes: Axes, bias: pd.DataFrame) -> None:
    """What gamma takes from J, and the bound."""
    for seed, colour in zip(PROBLEMS, (BLUE, GREEN, ORANGE), strict=True):
        here = bias[bias["problem"] == seed]
        axes.loglog(
            here["gamma"], here["bias"], color=colour, marker="o", ms=3, lw=0.9, label=f"problem {seed}"
        )
        axes.loglog(here["gamma"], here["bound"], color=colour, ls=":")
    axes.plot([], [], color=BLACK, ls=":", label="bound $\\gamma$ KL at $\\theta$*")
    axes.set(
        title="Bias of the penalty KL(ref || $\\pi$)",
        xlabel="$\\gamma$",
        ylabel="J($\\theta$*) $-$ J($\\theta_\\gamma$)",
    )
    axes.legend()
