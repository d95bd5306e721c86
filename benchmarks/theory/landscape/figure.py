"""The figure of the landscape: six panels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.record import Row
from benchmarks.theory.ball import shell_points
from benchmarks.theory.figures import BLACK, BLUE, DIVERGING, GREEN, ORANGE, panels
from benchmarks.theory.landscape.curvature import (
    Curvature,
    hessians_of_objective,
    largest,
    relative_largest,
)
from benchmarks.theory.problem import Problem, reference_parameters


def draw(problem: Problem, rows: list[Row], path: Path) -> None:
    """Six panels: where J is not concave, what each KL changes, and the thresholds."""
    radius = 4.0
    table = pd.DataFrame(rows)
    with panels(path, 2, 3, (3.9, 3.3)) as (figure, axes):
        disc_map(figure, axes[0, 0], problem, radius)
        worst = most_bent(problem, radius)
        ray = torch.linspace(-1, 1, 161, dtype=torch.float64)[:, None] * radius * worst / worst.norm()
        along = ray @ worst / worst.norm()
        for place, direction, formula in (
            (axes[0, 1], "kl_ref_pi", r"KL($\pi_{ref}$ || $\pi_\theta$)"),
            (axes[0, 2], "kl_pi_ref", r"KL($\pi_\theta$ || $\pi_{ref}$)"),
        ):
            ray_map(figure, place, Curvature.at(problem, ray), along, direction)
            place.set_title(f"J $-$ $\\gamma$ {formula}")

        tried = np.linspace(0, 4, 41)
        for ball, style in ((0.125, ":"), (1.0, "--"), (4.0, "-")):
            shells = Curvature.at(problem, shell_points(problem.dimension, ball, 120, 20))
            for direction, colour in (("kl_ref_pi", BLUE), ("kl_pi_ref", ORANGE)):
                worst_of = [float(shells.penalised(gamma, direction).max()) for gamma in tried]
                axes[1, 0].plot(tried, worst_of, color=colour, ls=style)
            axes[1, 0].plot([], [], color=BLACK, ls=style, label=f"B = {ball:g}")
        for name, colour in (("kl_ref_pi", BLUE), ("kl_pi_ref", ORANGE)):
            axes[1, 0].plot([], [], color=colour, label=name)
        axes[1, 0].axhline(0, color=BLACK, lw=0.8)
        axes[1, 0].set(
            title="Worst point of the ball (below 0: concave)",
            xlabel="$\\gamma$",
            ylabel="largest eigenvalue rel. to Fisher",
            ylim=(-5, 4),
        )
        axes[1, 0].legend(ncols=2, loc="lower left", columnspacing=1.0)

        for column, colour, label in (
            ("gamma_bound", ORANGE, "bound M / $\\lambda_F$"),
            ("gamma_tight", BLUE, "tight, on the ball"),
            ("gamma_any_radius", GREEN, "for any radius (derived)"),
        ):
            axes[1, 1].semilogy(table["radius"], table[column], color=colour, marker="o", ms=3, label=label)
        axes[1, 1].set(
            title="$\\gamma$ above which J $-$ $\\gamma$ KL($\\pi_{ref}$||$\\pi_\\theta$) is concave",
            xlabel="radius B",
            ylabel="$\\gamma$",
        )
        axes[1, 1].legend()
        axes[1, 2].semilogy(
            table["radius"],
            table["modulus_at_any_radius"],
            color=GREEN,
            marker="o",
            ms=3,
            label="modulus of strong concavity,\n$\\gamma$ for any radius",
        )
        axes[1, 2].semilogy(
            table["radius"],
            table["smallest_eigenvalue_fisher"],
            color=BLACK,
            marker="o",
            ms=3,
            label="smallest eigenvalue of Fisher",
        )
        axes[1, 2].set(title="What a large ball costs", xlabel="radius B", ylabel="least over the ball")
        axes[1, 2].legend(loc="lower left")


def most_bent(problem: Problem, radius: float) -> Tensor:
    """(d,) where KL(pi_theta || pi_ref) bends down most, relative to the Fisher information."""
    points = shell_points(problem.dimension, radius, directions=120, shells=20)
    curvature = Curvature.at(problem, points)
    return points[relative_largest(-curvature.pi_ref, curvature.fisher).argmax()]


def disc_map(figure: Figure, axes: Axes, problem: Problem, radius: float) -> None:
    """Largest eigenvalue of Hess J over the ball of a problem with two features."""
    line = torch.linspace(-radius, radius, 121, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
    values = largest(hessians_of_objective(problem, grid.reshape(-1, 2))).reshape(grid.shape[:2])
    values[grid.norm(dim=-1) > radius] = math.nan
    axes.grid(visible=False)
    mesh = signed_mesh(axes, line, line, values)
    figure.colorbar(mesh, ax=axes, label="largest eigenvalue of Hess J")
    axes.plot(
        *reference_parameters(problem).tolist(), color=BLACK, marker="*", ms=9, ls="", label="reference"
    )
    axes.legend(loc="lower right", bbox_to_anchor=(1.05, -0.03), handletextpad=0.1)
    axes.set(
        title=f"J bends up where orange (ball B = {radius:g})",
        xlabel=r"$\theta_1$",
        ylabel=r"$\theta_2$",
        aspect="equal",
    )


def ray_map(figure: Figure, axes: Axes, curvature: Curvature, along: Tensor, direction: str) -> None:
    """Largest relative eigenvalue against the place on a ray through the ball and gamma."""
    gammas = torch.linspace(0, 4, 81, dtype=torch.float64)
    values = torch.stack([curvature.penalised(float(gamma), direction) for gamma in gammas])
    axes.grid(visible=False)
    mesh = signed_mesh(axes, along, gammas, values)
    figure.colorbar(mesh, ax=axes, label="largest eigenvalue rel. to Fisher")
    axes.set(xlabel=r"$\theta$ along a diameter of the ball", ylabel="$\\gamma$")


def signed_mesh(axes: Axes, x: Tensor, y: Tensor, values: Tensor) -> QuadMesh:
    """A map of signed values with its zero line in black."""
    most = float(values.nan_to_num().abs().max())
    mesh = axes.pcolormesh(
        x.numpy(),
        y.numpy(),
        values.numpy(),
        cmap=DIVERGING,
        norm=SymLogNorm(0.1, vmin=-most, vmax=most),
        shading="nearest",
        rasterized=True,
    )
    axes.contour(x.numpy(), y.numpy(), values.numpy(), levels=[0.0], colors=BLACK, linewidths=1.2)
    return mesh
