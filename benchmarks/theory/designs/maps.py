"""The true quality after ascent of each design, over the weight w and the coefficient c."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from benchmarks.record import Row
from benchmarks.theory.designs.data import mixtures, repeated, starts
from benchmarks.theory.designs.mixture import DESIGNS
from benchmarks.theory.problem import alignment_value

WEIGHTS = (0.0, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
COEFFICIENTS = (0.0, 0.2, 0.3, 0.6, 1.0)
OTHERS = ((0.1, 20), (1.0, 20), (0.3, 80))
"""Beta and pairs of coarser maps, which are recorded only."""
PROBLEMS = 24
"""Random problems of each map."""
STEP, STEPS, RADIUS = 0.5, 300, 6.0
"""Step size and number of the projected gradient ascent, and the ball that it stays in."""


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
