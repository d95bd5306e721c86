"""The part of grad E|h| that comes from theta drawing the pairs: its size, and runs without it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.record import Row
from benchmarks.theory.ball import points_in_ball
from benchmarks.theory.problem import Problem
from benchmarks.theory.robust.loss import KINKS
from benchmarks.theory.robust.stationarity import STEP, Setting
from benchmarks.theory.robust.steps import VARIANTS, Steps, run
from benchmarks.theory.statistics import bootstrap_means, interval

FAR = 2.0
"""Radius of the ball that far starts are drawn from."""
FAR_SEEDS, FAR_HORIZON = 60, 2**14


def penalty_parts(problem: Problem, theta: Tensor) -> tuple[Tensor, Tensor]:
    """(N, d) parts of grad E|h|: E[grad |h|] for fixed pairs, E[|h| grad log(pi pi)] from drawing them."""
    leaf = theta.clone().requires_grad_()
    pairs, size = problem.pairs(leaf), problem.score(leaf).abs()
    (held,) = torch.autograd.grad((pairs.detach() * size).sum(), leaf, retain_graph=True)
    (drawn,) = torch.autograd.grad((pairs * size.detach()).sum(), leaf)
    return held, drawn


def sampling_rows(settings: Sequence[Setting]) -> list[Row]:
    """The two parts of grad E|h| (``penalty_parts``), far from the minimum and at it: lengths and cosine.

    ``rho_drawing`` is the length of what a method without the second part lacks of the gradient of L_rho.
    """
    rows: list[Row] = []
    for setting in settings:
        anywhere = points_in_ball(2000, setting.problem.dimension, FAR, seed=12)
        for place, theta in (("far", anywhere), ("minimum", setting.place[None])):
            held, drawn = penalty_parts(setting.problem, theta)
            rows.append(
                {
                    "rho": setting.rho,
                    "minimum": KINKS[setting.rho],
                    "at": place,
                    "held_pairs": float(held.norm(dim=-1).median()),
                    "drawing": float(drawn.norm(dim=-1).median()),
                    "cosine": float(torch.cosine_similarity(held, drawn, dim=-1).median()),
                    "rho_drawing": setting.rho * float(drawn.norm(dim=-1).median()),
                }
            )
    return rows


def far_rows(settings: Sequence[Setting]) -> list[Row]:
    """How far above the minimum, and how stationary, runs from far starts end."""
    rng, rows = np.random.default_rng(2), []
    for setting in settings:
        start = points_in_ball(FAR_SEEDS, setting.problem.dimension, FAR, seed=13).numpy()
        length = STEP / math.sqrt(FAR_HORIZON)
        steps = Steps.joined([Steps.of(name, setting.rho, length, FAR_SEEDS) for name in VARIANTS])
        (ends,) = run(setting.problem, np.concatenate([start] * len(VARIANTS)), steps, [FAR_HORIZON], rng)
        for name, end in zip(VARIANTS, ends.reshape(len(VARIANTS), FAR_SEEDS, -1), strict=True):
            gap = setting.gap(end)
            low, high = interval(bootstrap_means(gap, rng))
            rows.append(
                {
                    "rho": setting.rho,
                    "minimum": KINKS[setting.rho],
                    "variant": name,
                    "samples": FAR_HORIZON,
                    "seeds": FAR_SEEDS,
                    "loss_gap": float(gap.mean()),
                    "loss_gap_low": low,
                    "loss_gap_high": high,
                    "mean_square": float(setting.stationarity(end)[0].mean()),
                }
            )
    return rows
