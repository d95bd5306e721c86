"""SAIL's designs DDP, DPP and DPR, mixed with weight w into a fixed set of labelled pairs.

1. Identities: the expectation of the project's estimator with c = 1 is the gradient of the mixture's
   objective, (1 - w) E_data[F] + w E_design[F], also with a KL penalty and with a robust cost; what c = 0
   leaves out; the policy's own labels give T1 no mean; DDP's objective is minus the entropy of sigma(h).
2. Maps: what ascending T1 + c (T2 + T3) does to the true quality, over (w, c), on problems with few labelled
   pairs. DPR is asked twice: with the teacher's fresh labels, and with those of a reward model that was
   fitted to the same few pairs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from torch import Tensor
from torch.nn.functional import logsigmoid

from benchmarks.record import Row, arguments, write
from benchmarks.theory.estimator import ascent, compare, expected_loss
from benchmarks.theory.figures import BLACK, DIVERGING, panels
from benchmarks.theory.problem import (
    Problem,
    alignment_value,
    hessian,
    random_problem,
    reference_parameters,
    stack,
)

DESIGNS = {"DDP": "own", "DPP": "own", "DPR": "teacher", "DPR, reward model": "model"}
"""Whose labels the design's samples have; DDP's responses are data, the others' the policy's."""
AUTHORS = {"DDP": (0.4, 0.2), "DPP": (0.3, 0.2), "DPR": (0.3, 0.3), "DPR, reward model": (0.3, 0.3)}
"""(w, c) that the authors of SAIL used with language models."""
WEIGHTS = (0.0, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
COEFFICIENTS = (0.0, 0.2, 0.3, 0.6, 1.0)
BETA, PAIRS = 0.3, 20
"""Scale of the pair score, and labelled pairs in each problem's data set, of the maps that are drawn."""
OTHERS = ((0.1, 20), (1.0, 20), (0.3, 80))
"""Beta and pairs of coarser maps, which are recorded only."""
IDENTITIES = 200
"""Random problems on which the identities are checked."""
PROBLEMS = 24
"""Random problems of each map."""
STEP, STEPS, RADIUS = 0.5, 300, 6.0
"""Step size and number of the projected gradient ascent, and the ball that it stays in."""


@dataclass(frozen=True)
class Mixture:
    """A fixed set of labelled pairs and a design, with their weights. The problem may be several stacked."""

    problem: Problem
    pairs: Tensor
    """(..., X, Y, Y) share of each pair in the data."""
    recorded: Tensor
    """(..., X, Y, Y) share of +1 among the pair's recorded labels."""
    model: Tensor
    """(..., X, Y, Y) P(first preferred) of a reward model."""

    def chance(self, design: str, h: Tensor) -> Tensor:
        """(..., X, Y, Y) probability that the label of a design's sample is +1."""
        return {"own": h.sigmoid(), "teacher": self.problem.chance, "model": self.model}[DESIGNS[design]]

    def weight(self, design: str, theta: Tensor) -> Tensor:
        """(..., X, Y, Y) probability that a design's sample is that pair."""
        return self.pairs if design == "DDP" else self.problem.pairs(theta)

    def data_ascent(self, theta: Tensor, rho: float = 0.0) -> Tensor:
        """(..., d) expectation of the estimator on the data: offline DPO."""
        loss = partial(expected_loss, c=0.0, responses=False, rho=rho)
        return ascent(lambda leaf: loss(self.problem, leaf, self.pairs, self.recorded), theta)

    def design_ascent(self, design: str, theta: Tensor, c: float, rho: float = 0.0) -> Tensor:
        """(..., d) expectation of the estimator on the design's samples."""
        weight, chance = self.weight(design, theta), self.chance(design, self.problem.score(theta))
        loss = partial(
            expected_loss, c=c, responses=design != "DDP", own_labels=DESIGNS[design] == "own", rho=rho
        )
        return ascent(lambda leaf: loss(self.problem, leaf, weight, chance), theta)

    def estimated(self, design: str, theta: Tensor, w: float, c: float, gamma: float, rho: float) -> Tensor:
        """(..., d) expectation of the estimator on the mixture, with KL penalty and robust cost."""
        data, own = self.data_ascent(theta, rho), self.design_ascent(design, theta, c, rho)
        penalty = ascent(lambda leaf: gamma * self.problem.kl(leaf, "kl_ref_pi").sum(), theta)
        return (1 - w) * data + w * own + penalty

    def true_gradient(self, design: str, theta: Tensor, w: float, gamma: float, rho: float) -> Tensor:
        """(..., d) gradient of the mixture's objective."""
        plain = ascent(lambda leaf: -self.objective(design, leaf, w, rho).sum(), theta)
        return plain - gamma * kl_gradient(self.problem, theta)

    def objective(self, design: str, theta: Tensor, w: float, rho: float) -> Tensor:
        """(...) the objective, written out: for each pair the worst teacher within rho of its labels."""
        h = self.problem.score(theta)

        def value(chance: Tensor) -> Tensor:
            ends = (p * logsigmoid(h) + (1 - p) * logsigmoid(-h) for p in (chance - rho, chance + rho))
            return torch.minimum(*ends)

        data = self.pairs * value(self.recorded)
        own = self.weight(design, theta) * value(self.chance(design, h))
        return ((1 - w) * data + w * own).sum(dim=(-3, -2, -1))


def kl_gradient(problem: Problem, theta: Tensor) -> Tensor:
    """(..., d) gradient of E_x KL(pi_ref || pi_theta): mean features minus those of the reference."""
    weight = problem.prompt[..., None] * (problem.logp(theta).exp() - problem.ref_logp.exp())
    return (weight[..., None] * problem.phi).sum(dim=(-3, -2))


# Data


def labelled(problem: Problem, count: int, rng: np.random.Generator) -> Mixture:
    """``count`` pairs of different responses of the reference, each with one label of the teacher."""
    counts = torch.zeros(2, *problem.chance.shape, dtype=torch.float64)
    prompts = rng.choice(len(problem.prompt), count, p=problem.prompt.numpy())
    for x in prompts:
        likely = problem.ref_logp[x].exp().numpy()
        first, second = rng.choice(len(likely), 2, replace=False, p=likely / likely.sum())
        lost = int(rng.random() >= problem.chance[x, first, second])
        counts[lost, x, first, second] += 1
    total = counts.sum(dim=0)
    return Mixture(problem, total / count, counts[0] / total.clamp(min=1), fitted_chance(counts))


def fitted_chance(counts: Tensor, steps: int = 8) -> Tensor:
    """(X, Y, Y) P(first preferred) of the Bradley-Terry rewards that are most probable given the labels and a
    standard normal prior (the true one), by Newton's method. ``counts`` is (2, X, Y, Y)."""
    shape = counts.shape[1:3]

    def surprise(flat: Tensor) -> Tensor:
        reward = flat.view(shape)
        h = reward[:, :, None] - reward[:, None, :]
        fit = counts[0] * logsigmoid(h) + counts[1] * logsigmoid(-h)
        return flat.square().sum() / 2 - fit.sum()

    flat = torch.zeros(shape, dtype=torch.float64).flatten()
    for _ in range(steps):
        flat = flat - torch.linalg.solve(hessian(surprise, flat), torch.func.grad(surprise)(flat))
    reward = flat.view(shape)
    return torch.sigmoid(reward[:, :, None] - reward[:, None, :])


def mixtures(count: int, beta: float, pairs: int = PAIRS) -> Mixture:
    """``count`` random problems, each with ``pairs`` labelled pairs, stacked."""
    rng = np.random.default_rng(0)
    each = [
        labelled(random_problem(seed, responses=5, dimension=4, beta=beta, quality=1.0), pairs, rng)
        for seed in range(count)
    ]
    return Mixture(
        stack([mixture.problem for mixture in each]),
        *(
            torch.stack([getattr(mixture, name) for mixture in each])
            for name in ("pairs", "recorded", "model")
        ),
    )


def starts(problem: Problem) -> Tensor:
    """(N, d) parameters of the references of stacked problems."""
    parts = zip(problem.prompt, problem.phi, problem.ref_logp, problem.chance, strict=True)
    return torch.stack([reference_parameters(Problem(*each, problem.beta)) for each in parts])


# 1. Identities


EXTRAS = {"plain": (0.0, 0.0), "RevKL": (0.3, 0.0), "robust": (0.0, 0.1), "RevKL and robust": (0.3, 0.1)}
"""(gamma, rho)."""


def identity_rows() -> list[Row]:
    """Every design and extra at random parameters, w = 0.4."""
    mixture = mixtures(IDENTITIES, beta=0.7)
    theta = torch.from_numpy(np.random.default_rng(1).normal(size=(IDENTITIES, 4)))
    w = 0.4
    rows: list[Row] = []
    for design, (extra, (gamma, rho)) in itertools.product(DESIGNS, EXTRAS.items()):
        truth = mixture.true_gradient(design, theta, w, gamma, rho)
        for c in (0.0, 0.3, 1.0):
            row = compare(mixture.estimated(design, theta, w, c, gamma, rho), truth)
            rows.append({"design": design, "extra": extra, "gamma": gamma, "rho": rho, "w": w, "c": c, **row})
    return rows


def own_label_rows() -> list[Row]:
    """T1 under the policy's own labels, and the objective of DDP against an entropy."""
    mixture = mixtures(IDENTITIES, beta=0.7)
    theta = torch.from_numpy(np.random.default_rng(1).normal(size=(IDENTITIES, 4)))
    rows: list[Row] = [
        {
            "identity": f"T1 of {design}: largest |mean|",
            "error": float(mixture.design_ascent(design, theta, 0.0).abs().max()),
        }
        for design in ("DDP", "DPP")
    ]
    certain = mixture.problem.score(theta).sigmoid()
    entropy = torch.special.entr(certain) + torch.special.entr(1 - certain)
    loss = expected_loss(mixture.problem, theta, mixture.pairs, certain, c=0.0, responses=False)
    difference = loss - (mixture.pairs * entropy).sum()
    rows.append({"identity": "DDP's objective + entropy of sigma(h)", "error": float(difference.abs())})
    return rows


# 2. Maps


def map_rows(beta: float, pairs: int, weights: Sequence[float], coefficients: Sequence[float]) -> list[Row]:
    """True quality after ascending each design's T1 + c (T2 + T3), for every (w, c).

    The reference point is offline DPO, the same ascent with w = 0. ``best_on_path`` is the highest win rate
    met on the way: what early stopping could reach. ``moving`` is the median size of the last
    step divided by the step size.
    """
    single = mixtures(PROBLEMS, beta, pairs)
    cells = list(itertools.product(weights, coefficients))
    mixture = repeated(single, len(cells))
    start = starts(single.problem).repeat(len(cells), 1)
    w, c = (
        torch.tensor(column, dtype=torch.float64).repeat_interleave(PROBLEMS)[:, None]
        for column in zip(*cells, strict=True)
    )
    rows: list[Row] = []
    for design in DESIGNS:
        theta, before, best = start, start, torch.zeros(len(start), dtype=torch.float64)
        for _ in range(STEPS):
            plain = mixture.design_ascent(design, theta, 0.0)
            through_draws = mixture.design_ascent(design, theta, 1.0) - plain
            field = (1 - w) * mixture.data_ascent(theta) + w * (plain + c * through_draws)
            before, theta = theta, theta + STEP * field
            theta = theta / (theta.norm(dim=-1, keepdim=True) / RADIUS).clamp(min=1.0)
            best = torch.maximum(best, mixture.problem.win_rate(theta))
        measures = {
            "win_rate": mixture.problem.win_rate(theta),
            "best_on_path": best,
            "quality_gain": mixture.problem.mean_quality(theta) - mixture.problem.mean_quality(start),
            "alignment_gain": alignment_value(mixture.problem, theta)
            - alignment_value(mixture.problem, start),
        }
        moving = (theta - before).norm(dim=-1).view(len(cells), PROBLEMS) / STEP
        by_cell = {name: value.view(len(cells), PROBLEMS) for name, value in measures.items()}
        offline = {name: value[0] for name, value in by_cell.items()}  # the first cell has w = 0
        for place, (weight, coefficient) in enumerate(cells):
            row: Row = {"beta": beta, "pairs": pairs, "problems": PROBLEMS}
            row |= {"design": design, "w": weight, "c": coefficient, "moving": float(moving[place].median())}
            for name, value in by_cell.items():
                gain = value[place] - offline[name]
                row[name] = float(value[place].mean())
                row[f"{name}_over_offline"] = float(gain.mean())
                row[f"{name}_over_offline_se"] = float(gain.std() / PROBLEMS**0.5)
            row["share_better_than_offline"] = float(
                (measures["win_rate"].view(len(cells), PROBLEMS)[place] > offline["win_rate"]).double().mean()
            )
            rows.append(row)
    return rows


def repeated(mixture: Mixture, times: int) -> Mixture:
    """The stacked problems repeated: times * N of them."""
    problem = mixture.problem

    def again(values: Tensor) -> Tensor:
        return values.repeat(times, *[1] * (values.ndim - 1))

    return Mixture(
        Problem(
            again(problem.prompt),
            again(problem.phi),
            again(problem.ref_logp),
            again(problem.chance),
            problem.beta,
        ),
        again(mixture.pairs),
        again(mixture.recorded),
        again(mixture.model),
    )


# Figure


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


def main() -> None:
    asked = arguments(__doc__).parse_args()
    about = {"what": __doc__}
    write(asked.results, "theory_designs_identities", identity_rows(), about)
    write(asked.results, "theory_designs_own_labels", own_label_rows(), about)
    drawn = map_rows(BETA, PAIRS, WEIGHTS, COEFFICIENTS)
    others = [
        row for beta, pairs in OTHERS for row in map_rows(beta, pairs, (0.0, 0.4, 0.8), (0.0, 0.2, 1.0))
    ]
    write(asked.results, "theory_designs", drawn + others, about)
    draw(drawn, asked.results / "theory_designs.png")


if __name__ == "__main__":
    main()
