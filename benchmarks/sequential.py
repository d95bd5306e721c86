"""How often batch-by-batch comparisons go wrong, how often they find what there is, and with how many seeds.

Each row plays many experiments of arms beside one baseline. ``wrong`` is the share of experiments with any
wrong decision (a verdict on an arm that equals the baseline, or of the wrong sign), which may be 5%.
``right`` is the share of arms that differ and were found, and ``seeds`` the mean number of seeds of an arm
until it was decided, out of 30.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks import record
from benchmarks.coverage import POPULATIONS
from sailctl.analysis.sequential import Plan, decide

SAMPLES = 1_000
DRAWS = 500
PLAN = Plan()
GAPS = {
    "no arm differs": (0.0, 0.0, 0.0),
    "one arm of three is better by 1": (0.0, 0.0, 1.0),
    "all arms are worse by 1": (-1.0, -1.0, -1.0),
    "one arm alone, no difference": (0.0,),
    "one arm alone, better by 1": (1.0,),
}
"""Differences from the baseline, in standard deviations of a task over the root of the number of tasks."""


def main() -> None:
    parser = record.arguments(__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the samples, for a quick look")
    chosen = parser.parse_args()
    samples = math.ceil(chosen.share * SAMPLES)
    rows = [
        measure(what, name, tasks, spread, samples)
        for what in GAPS
        for name in ("normal", "bimodal", "lognormal(0.75)")
        for tasks in (1, 4)
        for spread in (1.0, 3.0)
    ]
    about = {"batch": PLAN.batch, "batches": PLAN.batches, "alpha": PLAN.alpha, "draws": DRAWS}
    record.write(chosen.results, "sequential", rows, about)


def measure(what: str, name: str, tasks: int, spread: float, samples: int) -> dict[str, object]:
    """A row of the table; ``spread`` is that of the arms, where the baseline's is 1."""
    rng, draw = np.random.default_rng(0), POPULATIONS[name]
    size = float(draw(np.random.default_rng(1), (100_000,)).std()) / math.sqrt(tasks)
    wrong = right = seeds = 0
    for _ in range(samples):
        shape = (PLAN.batches, tasks, PLAN.batch)
        arms = {str(i): spread * draw(rng, shape) + gap * size for i, gap in enumerate(GAPS[what])}
        found = decide(arms, draw(rng, shape), PLAN, rng, DRAWS)
        signs = [{"better": 1, "worse": -1, "undecided": 0}[one.verdict] for one in found.values()]
        wrong += any(sign not in (0, np.sign(gap)) for sign, gap in zip(signs, GAPS[what], strict=True))
        right += sum(bool(gap) and sign == np.sign(gap) for sign, gap in zip(signs, GAPS[what], strict=True))
        seeds += sum(one.look * PLAN.batch for one in found.values())
    error = math.sqrt(PLAN.alpha * (1 - PLAN.alpha) / samples)
    differ = sum(map(bool, GAPS[what]))
    return {
        "experiment": what,
        "population": name,
        "tasks": tasks,
        "spread_of_arms": spread,
        "wrong": wrong / samples,
        "within": wrong / samples <= PLAN.alpha + 2 * error,
        "right": round(right / samples / differ, 4) if differ else None,
        "seeds": round(seeds / samples / len(GAPS[what]), 1),
        "samples": samples,
    }


if __name__ == "__main__":
    main()
