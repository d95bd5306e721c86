"""Writes the records and the figure."""

from __future__ import annotations

import pandas as pd

from benchmarks.record import arguments, write
from benchmarks.theory import critic
from benchmarks.theory.critic.errors import error_rows
from benchmarks.theory.critic.figure import draw
from benchmarks.theory.critic.first_order import effective_rows, first_order_rows
from benchmarks.theory.critic.gradients import gradient_rows


def main() -> None:
    asked = arguments(critic.__doc__).parse_args()
    records = {
        "theory_critic_gradients": gradient_rows(),
        "theory_critic_first_order": first_order_rows(),
        "theory_critic_effective": effective_rows(),
        "theory_critic_errors": error_rows(),
    }
    for name, rows in records.items():
        write(asked.results, name, rows, {"what": critic.__doc__})
    draw({name: pd.DataFrame(rows) for name, rows in records.items()}, asked.results / "theory_critic.png")


if __name__ == "__main__":
    main()
