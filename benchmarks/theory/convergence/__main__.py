"""Writes the records and the figure."""

from __future__ import annotations

import pandas as pd

from benchmarks.record import arguments, write
from benchmarks.theory import convergence
from benchmarks.theory.convergence.ascent import BATCH
from benchmarks.theory.convergence.bias import bias_rows
from benchmarks.theory.convergence.cases import PROBLEMS, cases
from benchmarks.theory.convergence.figure import draw
from benchmarks.theory.convergence.noise import noise_rows
from benchmarks.theory.convergence.objectives import RADIUS
from benchmarks.theory.convergence.paths import path_rows, study
from benchmarks.theory.convergence.samples import sample_rows
from benchmarks.theory.convergence.spheres import radius_rows


def main() -> None:
    asked = arguments(convergence.__doc__).parse_args()
    studied = study(cases())
    paths = path_rows(studied)
    noise, curves = noise_rows(studied)
    samples, slopes = sample_rows(
        [known for known in studied if known.case.name == "reference" or known.case.seed == PROBLEMS[0]]
    )
    bias = bias_rows(studied)
    about = {"what": convergence.__doc__, "radius": RADIUS, "batch": BATCH}
    for name, rows in (
        ("theory_convergence_paths", paths),
        ("theory_convergence_radius", radius_rows(studied)),
        ("theory_convergence_noise", noise),
        ("theory_convergence_samples", samples),
        ("theory_convergence_slopes", slopes),
        ("theory_convergence_bias", bias),
    ):
        write(asked.results, name, rows, about)
    draw(
        studied,
        pd.DataFrame(paths),
        pd.DataFrame(noise),
        curves,
        pd.DataFrame(samples),
        pd.DataFrame(bias),
        asked.results / "theory_convergence.png",
    )


if __name__ == "__main__":
    main()
