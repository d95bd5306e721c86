"""Writes the records and the figure."""

from __future__ import annotations

from benchmarks.record import arguments, write
from benchmarks.theory import designs
from benchmarks.theory.designs.data import BETA, PAIRS
from benchmarks.theory.designs.figure import draw
from benchmarks.theory.designs.identities import identity_rows, own_label_rows
from benchmarks.theory.designs.maps import COEFFICIENTS, OTHERS, WEIGHTS, map_rows


def main() -> None:
    asked = arguments(designs.__doc__).parse_args()
    about = {"what": designs.__doc__}
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
