"""PEBBLE on walker_walk with 500 labels, beside what B-Pref's authors publish at the same env steps.

Their protocol, scaled down to what a core does in an hour: two hidden layers of 128 in place of 1024, batches
of 256 in place of 1024, and half a gradient step per env step in place of one. Teacher, labels, sessions,
segments, ensemble and pre-training are theirs (``experiment=bpref``). Finished runs in ``--out`` are not
trained again.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.record import arguments, write
from sailctl.analysis.figures.pages import legend, page, plain_ticks
from sailctl.runs.results import RunRecord, load_run

WORDS = [
    "algo=pebble", "env=walker_walk", "experiment=bpref", "env_steps=250_000", "algo.hidden=[128,128]",
    "logger.wandb=disabled",
]  # fmt: skip
PUBLISHED = {250_000: 820.0, 500_000: 920.0}
"""Mean return by env steps, 500 labels, as the authors of B-Pref (arXiv 2111.03026) report it; rounded."""


def finished(out: Path, seed: int) -> RunRecord | None:
    """The finished run of a seed, if there is one."""
    found = map(load_run, sorted(out.glob(f"walker_walk/pebble/*-s{seed}")))
    return next((run for run in found if run.state == "finished"), None)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/pebble"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = parser.parse_args()
    rows, runs = [], []
    for seed in asked.seeds:
        if (run := finished(asked.out, seed)) is None:
            words = [*WORDS, f"seed={seed}", f"out={asked.out}"]
            subprocess.run([sys.executable, "-m", "sailctl", "train", *words], check=True)
            run = load_run(next(asked.out.glob(f"walker_walk/pebble/*-s{seed}")))
        runs.append(run)
        for env_steps, episodes in run.evaluations.groupby("env_steps"):
            returns = episodes["return"]
            rows.append(
                {
                    "seed": seed,
                    "env_steps": env_steps,
                    "labels": int(episodes["labels"].iloc[0]),
                    "mean": returns.mean(),
                    "lowest": returns.min(),
                    "highest": returns.max(),
                    "published": PUBLISHED.get(int(str(env_steps))),
                }
            )
    made = [
        {"command": run.provenance["command"], "git": run.provenance["git"], "wall_s": run.status["wall_s"]}
        for run in runs
    ]
    write(asked.results, "pebble", rows, {"settings": WORDS, "published": PUBLISHED, "runs": made})

    with page(asked.results / "pebble.png", 5.0, 3.2) as figure:
        panel = figure.subplots()
        for run in runs:
            curve = run.evaluations.groupby("env_steps")["return"].mean()
            panel.plot(curve.index, curve, color="#0072B2", lw=1.5, label="sailctl, scaled down")
        panel.plot(
            PUBLISHED.keys(), PUBLISHED.values(), "D", color="#D55E00", ms=6, label="B-Pref, published"
        )
        panel.set(xlabel="env steps", ylabel="true return", title="PEBBLE, walker_walk, 500 labels")
        panel.set(xlim=(0, 520_000), ylim=(0, 1000))
        plain_ticks(panel)
        handles, names = panel.get_legend_handles_labels()
        legend(figure, [(handle, name) for name, handle in dict(zip(names, handles, strict=True)).items()])


if __name__ == "__main__":
    main()
