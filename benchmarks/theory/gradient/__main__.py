"""Writes the records and the figure."""

from __future__ import annotations

import pandas as pd

from benchmarks.record import arguments, write
from benchmarks.theory import gradient
from benchmarks.theory.gradient.figure import draw
from benchmarks.theory.gradient.fixed_points import control_fixed_point_rows, fixed_point_rows
from benchmarks.theory.gradient.quadrature import control_bias_rows, quadrature_rows
from benchmarks.theory.gradient.responses import response_rows


def main() -> None:
    asked = arguments(gradient.__doc__).parse_args()
    biases = response_rows() + quadrature_rows() + control_bias_rows()
    ends = fixed_point_rows() + control_fixed_point_rows()
    about = {"what": gradient.__doc__}
    write(asked.results, "theory_gradient", biases, about)
    write(asked.results, "theory_gradient_fixed_points", ends, about)
    draw(pd.DataFrame(biases), pd.DataFrame(ends), asked.results / "theory_gradient.png")


if __name__ == "__main__":
    main()
