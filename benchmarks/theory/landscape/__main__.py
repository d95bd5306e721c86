"""Writes the records and the figure."""

from __future__ import annotations

from benchmarks.record import arguments, write
from benchmarks.theory import landscape
from benchmarks.theory.landscape.figure import draw
from benchmarks.theory.landscape.many_problems import problem_rows
from benchmarks.theory.landscape.one_problem import ball_row, two_responses
from benchmarks.theory.problem import random_problem

RADII = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0)
SHOWN = 2
"""Seed of the problem in the figure."""


def main() -> None:
    asked = arguments(landscape.__doc__).parse_args()
    shown = random_problem(SHOWN, prompts=2, dimension=2)
    name = f"two features, seed {SHOWN}"
    rows = [ball_row(name, shown, radius) for radius in RADII]
    rows.append(ball_row("two responses", two_responses(), 2.0))
    about = {"what": landscape.__doc__}
    write(asked.results, "theory_landscape", rows, about)
    write(asked.results, "theory_landscape_problems", problem_rows(), about)
    draw(shown, rows[: len(RADII)], asked.results / "theory_landscape.png")


if __name__ == "__main__":
    main()
