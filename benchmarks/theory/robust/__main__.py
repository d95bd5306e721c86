"""Writes the records and the figure."""

from __future__ import annotations

import pandas as pd

from benchmarks.record import arguments, write
from benchmarks.theory import robust
from benchmarks.theory.robust.convexity import convexity_rows
from benchmarks.theory.robust.drawing import far_rows, sampling_rows
from benchmarks.theory.robust.figure import draw, draw_sets
from benchmarks.theory.robust.freezing import freezing_rows
from benchmarks.theory.robust.linearity import linearity_rows
from benchmarks.theory.robust.loss import KINKS, RADIUS
from benchmarks.theory.robust.sets import rankings_rows, sets_rows
from benchmarks.theory.robust.stationarity import Setting, stationarity_rows, step_size_rows
from benchmarks.theory.robust.worst_case import worst_case_rows


def main() -> None:
    asked = arguments(robust.__doc__).parse_args()
    settings = [Setting.at(rho) for rho in KINKS]
    stationarity, slopes = stationarity_rows(settings)
    records = {
        "theory_robust_worst_case": worst_case_rows(),
        "theory_robust_sets": sets_rows(),
        "theory_robust_rankings": rankings_rows(),
        "theory_robust_freezing": freezing_rows(),
        "theory_robust_convexity": convexity_rows(),
        "theory_robust_stationarity": stationarity,
        "theory_robust_slopes": slopes,
        "theory_robust_step_sizes": step_size_rows(settings[1]),
        "theory_robust_sampling": sampling_rows(settings),
        "theory_robust_far": far_rows(settings),
        "theory_robust_linearity": linearity_rows(),
    }
    for name, rows in records.items():
        write(asked.results, name, rows, {"what": robust.__doc__, "radius": RADIUS})
    tables = {name: pd.DataFrame(rows) for name, rows in records.items()}
    draw(tables, asked.results / "theory_robust.png")
    draw_sets(tables["theory_robust_sets"], asked.results / "theory_robust_sets.png")


if __name__ == "__main__":
    main()
