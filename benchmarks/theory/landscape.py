"""The curvature of J and of J - gamma KL on the ball ||theta|| <= B, for both directions of the KL.

All Hessians are exact. Three thresholds are compared above which gamma makes J - gamma KL(pi_ref || pi_theta)
concave on the ball:

- bound: M / lambda_F, with M the largest eigenvalue of Hess J and lambda_F the smallest of the Fisher
  information, both over the ball;
- tight: the largest eigenvalue of Hess J relative to the Fisher information, over the ball;
- any radius: 2 log 2 + 4 beta (1 + log Y + max log 1/pi_ref), which needs no ball at all (derived, see
  ``any_radius_threshold``).

With KL(pi_theta || pi_ref) there is no such threshold: the range of gamma that works, if any, is searched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.record import arguments, write
from benchmarks.theory.figures import BLACK, BLUE, DIVERGING, GREEN, ORANGE, panels
from benchmarks.theory.gradient import reference_parameters
from benchmarks.theory.problem import Problem, random_problem

RADII = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0)
PROBLEMS = 50
"""Random problems over which shares are taken."""
SHOWN = 2
"""Seed of the problem in the figure."""
FRESH = 20_000
"""New random points at which a threshold is put to the test."""

Value = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Curvature:
    """Hessians at N points."""

    objective: Tensor
    """(N, d, d) of J."""
    ref_pi: Tensor
    """(N, d, d) of E_x KL(pi_ref || pi_theta)."""
    pi_ref: Tensor
    """(N, d, d) of E_x KL(pi_theta || pi_ref)."""
    fisher: Tensor
    """(N, d, d) Fisher information of pi_theta, from the definition."""

    @classmethod
    def at(cls, problem: Problem, theta: Tensor) -> Curvature:
        """The Hessians of a problem at (N, d) points, by automatic differentiation."""

        def hessians(function: Value) -> Tensor:
            found: Tensor = torch.func.vmap(torch.func.hessian(function))(theta)
            return found

        return cls(
            objective=hessians(problem.objective),
            ref_pi=hessians(partial(problem.kl, direction="kl_ref_pi")),
            pi_ref=hessians(partial(problem.kl, direction="kl_pi_ref")),
            fisher=problem.fisher(theta),
        )

    def at_points(self, chosen: Tensor) -> Curvature:
        """The same at some of the points, by a boolean mask (N,)."""
        return Curvature(
            self.objective[chosen], self.ref_pi[chosen], self.pi_ref[chosen], self.fisher[chosen]
        )

    def penalised(self, gamma: float, direction: str) -> Tensor:
        """(N,) largest eigenvalue of Hess(J - gamma KL) relative to the Fisher information."""
        penalty = self.ref_pi if direction == "kl_ref_pi" else self.pi_ref
        return relative_largest(self.objective - gamma * penalty, self.fisher)


def largest(matrices: Tensor) -> Tensor:
    """(N,) largest eigenvalues of symmetric matrices."""
    eigenvalues: Tensor = torch.linalg.eigvalsh(matrices)
    return eigenvalues[:, -1]


def smallest(matrices: Tensor) -> Tensor:
    """(N,) smallest eigenvalues of symmetric matrices."""
    eigenvalues: Tensor = torch.linalg.eigvalsh(matrices)
    return eigenvalues[:, 0]


def relative_largest(matrices: Tensor, fisher: Tensor) -> Tensor:
    """(N,) largest lambda with det(A - lambda F) = 0: positive exactly where A has a positive eigenvalue."""
    root = torch.linalg.cholesky(fisher)
    half = torch.linalg.solve_triangular(root, matrices, upper=False)
    whitened = torch.linalg.solve_triangular(root, half.mT, upper=False)
    return largest((whitened + whitened.mT) / 2)


def any_radius_threshold(problem: Problem) -> float:
    """Above it, J - gamma KL(pi_ref || pi_theta) is concave at every theta, however large (derived).

    For one prompt, with s the scores of the responses, V = E_z log sigma(z h) and U = V + log 2 <= log 2,

        Hess J = E[U ((s1 + s2)(s1 + s2)^T - 2 Fisher)] + 4 beta E[V' s1 s1^T]
                 + beta^2 E[V'' (s1 - s2)(s1 - s2)^T],

    where V'' <= 0, |V'| <= 1 and -U <= |h|. So Hess J is at most 2 log 2 + 4 beta + 2 E|h| times the Fisher
    information, and E|h| <= 2 beta E|log pi/pi_ref| <= 2 beta (log Y + max log 1/pi_ref).
    """
    spread = math.log(problem.phi.shape[-2]) + float(-problem.ref_logp.min())
    return 2 * math.log(2) + 4 * problem.beta * (1 + spread)


# Points of the ball


def shell_points(dimension: int, radius: float, directions: int, shells: int) -> Tensor:
    """(directions * shells, d) points: the same directions at evenly spaced distances up to the boundary."""
    if dimension == 2:
        angle = np.linspace(0, 2 * np.pi, directions, endpoint=False)
        unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    else:
        unit = np.random.default_rng(0).normal(size=(directions, dimension))
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    distance = np.linspace(radius / shells, radius, shells)
    return torch.from_numpy((distance[:, None, None] * unit).reshape(-1, dimension))


def random_points(dimension: int, radius: float, count: int, seed: int) -> Tensor:
    """(count, d) points, uniform in the ball but for a quarter that lie on its boundary."""
    rng = np.random.default_rng(seed)
    unit = rng.normal(size=(count, dimension))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    distance = radius * rng.random((count, 1)) ** (1 / dimension)
    distance[: count // 4] = radius
    return torch.from_numpy(distance * unit)


def maximise(value: Value, points: Tensor, radius: float, rounds: int = 40) -> tuple[float, Tensor]:
    """Largest value over the ball, and where: the best of the given points, improved by local search.

    The 16 best points throw 16 trials each, at a distance that shrinks from radius / 10 to nothing.
    """
    rng = np.random.default_rng(0)
    best, order = value(points).topk(16)
    place = points[order]
    for scale in radius * np.geomspace(0.1, 1e-7, rounds):
        noise = torch.from_numpy(rng.normal(size=(16, *place.shape)))
        trials = place + scale * noise
        trials = trials / (trials.norm(dim=-1, keepdim=True) / radius).clamp(min=1.0)
        found = value(trials.reshape(-1, place.shape[1])).reshape(16, 16)
        top, which = found.max(dim=0)
        better = top > best
        place = torch.where(better[:, None], trials[which, torch.arange(16)], place)
        best = torch.where(better, top, best)
    winner = int(best.argmax())
    return float(best[winner]), place[winner]


# Records


def ball_row(name: str, problem: Problem, radius: float) -> dict[str, object]:
    """Everything about one ball of one problem."""
    points = shell_points(problem.dimension, radius, directions=120, shells=20)
    bend, _ = maximise(lambda t: largest(hessians_of_objective(problem, t)), points, radius)
    least, _ = maximise(lambda t: -smallest(problem.fisher(t)), points, radius)
    tight, where = maximise(lambda t: Curvature.at(problem, t).penalised(0.0, "kl_ref_pi"), points, radius)
    fresh = Curvature.at(problem, random_points(problem.dimension, radius, FRESH, seed=1))
    there = Curvature.at(problem, where[None])
    bound, anywhere = bend / -least, any_radius_threshold(problem)
    low, high, worst = working_range(Curvature.at(problem, points))
    return {
        "problem": name,
        "radius": radius,
        "largest_eigenvalue_J": bend,
        "smallest_eigenvalue_fisher": -least,
        "gamma_bound": bound,
        "gamma_tight": tight,
        "gamma_any_radius": anywhere,
        "concave_at_bound": share_concave(fresh, max(bound, 0.0)),
        "concave_at_1.01_tight": share_concave(fresh, max(1.01 * tight, 0.0)),
        "bends_up_at_0.99_tight": bool(there.penalised(0.99 * tight, "kl_ref_pi") > 0),
        "concave_at_any_radius": share_concave(fresh, anywhere),
        "modulus_at_any_radius": float(smallest(anywhere * fresh.ref_pi - fresh.objective).min()),
        "fisher_identity_error": float((fresh.ref_pi - fresh.fisher).abs().max() / fresh.fisher.abs().max()),
        "smallest_eigenvalue_kl_pi_ref": float(smallest(fresh.pi_ref).min()),
        "kl_pi_ref_gamma_low": low,
        "kl_pi_ref_gamma_high": high,
        "kl_pi_ref_least_worst": worst,
    }


def hessians_of_objective(problem: Problem, theta: Tensor) -> Tensor:
    """(N, d, d) Hessians of J at (N, d) points."""
    found: Tensor = torch.func.vmap(torch.func.hessian(problem.objective))(theta)
    return found


def share_concave(curvature: Curvature, gamma: float) -> float:
    """Share of points at which J - gamma KL(pi_ref || pi_theta) is strictly concave."""
    return float((largest(curvature.objective - gamma * curvature.ref_pi) < 0).double().mean())


GAMMAS = np.concatenate([[0.0], np.geomspace(0.01, 1000, 80)])
"""Grid on which a gamma that works is searched."""


def working_range(curvature: Curvature) -> tuple[float, float, float]:
    """Which gamma make J - gamma KL(pi_theta || pi_ref) concave at all points.

    The largest eigenvalue over the points is a convex function of gamma, so that they are an interval.

    Returns:
        The ends of the interval on the grid ``GAMMAS`` (NaN and NaN when it is empty), and the lowest value
        that the largest relative eigenvalue takes.
    """
    worst = np.array([float(curvature.penalised(float(gamma), "kl_pi_ref").max()) for gamma in GAMMAS])
    works = GAMMAS[worst < 0]
    low, high = (works[0], works[-1]) if len(works) else (math.nan, math.nan)
    return float(low), float(high), float(worst.min())


def failure(problem: Problem, centre: Tensor, limit: float) -> tuple[float, float]:
    """Where the Hessian of KL(pi_theta || pi_ref) first has a negative eigenvalue as theta leaves ``centre``.

    Returns:
        The distance, and the least KL(pi_theta || pi_ref) in nats of all such points within ``limit``; NaN
        and NaN when there is none.
    """
    kl = partial(problem.kl, direction="kl_pi_ref")
    points = shell_points(problem.dimension, limit, directions=200, shells=50)
    bent = smallest(torch.func.vmap(torch.func.hessian(kl))(centre + points)) < 0
    if not bent.any():
        return math.nan, math.nan
    return float(points[bent].norm(dim=-1).min()), float(kl(centre + points[bent]).min())


def problem_rows() -> list[dict[str, object]]:
    """Shares over random problems of three features, on grids of points."""
    rows: list[dict[str, object]] = []
    for beta in (0.1, 1.0):
        problems = [random_problem(seed, beta=beta) for seed in range(PROBLEMS)]
        shapes = pd.DataFrame([shape for problem in problems for shape in ball_shapes(problem)])
        fails = [failure(problem, reference_parameters(problem), limit=4.0) for problem in problems]
        for radius, here in shapes.groupby("radius"):
            rows.append(
                {
                    "beta": beta,
                    "radius": radius,
                    "problems": PROBLEMS,
                    "J_not_concave": float((here["bend"] > 0).mean()),
                    "gamma_tight_median": float(here["tight"].median()),
                    "gamma_tight_max": float(here["tight"].max()),
                    "gamma_bound_median": float(here["bound"].median()),
                    "gamma_any_radius_median": float(here["anywhere"].median()),
                    "tight_over_any_radius_max": float((here["tight"] / here["anywhere"]).max()),
                    "kl_pi_ref_indefinite": float((here["pi_ref"] < 0).mean()),
                    "kl_pi_ref_no_gamma": float(here["low"].isna().mean()),
                    "kl_pi_ref_fails_at_distance_median": float(np.nanmedian([far for far, _ in fails])),
                    "kl_pi_ref_fails_at_nats_median": float(np.nanmedian([nats for _, nats in fails])),
                }
            )
    return rows


def ball_shapes(problem: Problem) -> list[dict[str, float]]:
    """The thresholds of nested balls, on a grid of points and without refinement."""
    points = shell_points(problem.dimension, 4.0, directions=60, shells=16)
    whole = Curvature.at(problem, points)
    shapes = []
    for radius in (0.5, 1.0, 2.0, 4.0):
        here = whole.at_points(points.norm(dim=-1) < radius + 1e-9)
        bend = float(largest(here.objective).max())
        shapes.append(
            {
                "radius": radius,
                "bend": bend,
                "tight": float(here.penalised(0.0, "kl_ref_pi").max()),
                "bound": bend / float(smallest(here.fisher).min()),
                "anywhere": any_radius_threshold(problem),
                "pi_ref": float(smallest(here.pi_ref).min()),
                "low": working_range(here)[0],
            }
        )
    return shapes


def two_responses() -> Problem:
    """The smallest counterexample: two responses, one feature, a uniform reference, an undecided teacher."""
    half = torch.full((1, 2, 2), 0.5, dtype=torch.float64)
    return Problem(
        prompt=torch.ones(1, dtype=torch.float64),
        phi=torch.tensor([[[0.0], [1.0]]], dtype=torch.float64),
        ref_logp=half[:, 0].log(),
        chance=half,
        beta=1.0,
    )


# Figure


def draw(problem: Problem, rows: list[dict[str, object]], path: Path) -> None:
    """Six panels: where J bends up, what each KL does to it, and what the thresholds cost."""
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


def main() -> None:
    asked = arguments(__doc__).parse_args()
    shown = random_problem(SHOWN, prompts=2, dimension=2)
    name = f"two features, seed {SHOWN}"
    rows = [ball_row(name, shown, radius) for radius in RADII]
    rows.append(ball_row("two responses", two_responses(), 2.0))
    about = {"what": __doc__}
    write(asked.results, "theory_landscape", rows, about)
    write(asked.results, "theory_landscape_problems", problem_rows(), about)
    draw(shown, rows[: len(RADII)], asked.results / "theory_landscape.png")


if __name__ == "__main__":
    main()
