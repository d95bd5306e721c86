"""Trains a suite of arms with several seeds each and tables the final true returns.

A suite is a YAML file in ``benchmarks/suites``. Every launch trains anew, into a folder of its own, so that
no number comes from an older version of the code. The final score of a run is the mean of its last three
evaluations, fixed in advance; a run that failed counts as a failed seed and is never left out of the
denominator. A suite may first ``prepare`` what its arms share, a reference policy or a data set: command
lines of sailctl, run once. In all its words {out} is the launch's folder and {reference} the run in
{out}/reference.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import yaml

from benchmarks.record import arguments, write
from sailctl.analysis.trials import trial_of
from sailctl.runs.results import load_run

SUITES = Path(__file__).resolve().parent / "suites"


def words_of(words: list[str], out: Path) -> list[str]:
    """``words`` with the folder of the launch, and the reference trained in it, put in their places."""
    reference = next(iter(out.glob("reference/*/*/*-s*")), "")
    return [word.format(out=out, reference=reference) for word in words]


def sailctl(*words: str) -> None:
    """Run the command line, as a user would; a failure shows in what is missing afterwards."""
    subprocess.run([sys.executable, "-m", "sailctl", *words], check=False)


def rows_of(arm: dict[str, object], seeds: list[int], out: Path) -> list[dict[str, object]]:
    """One row per seed, failed seeds included."""
    found = {}
    for place in sorted(out.glob("*/*/*-s*")):
        record = load_run(place)
        found[record.config["seed"]] = record
    rows = []
    for seed in seeds:
        record = found.get(seed)
        finished = record is not None and record.status["state"] == "finished"
        last = record.metrics.iloc[-1] if record is not None and len(record.metrics) else None
        rows.append(
            {
                "arm": arm["name"],
                "seed": seed,
                "state": record.status["state"] if record is not None else "absent",
                "env_steps": int(last["env_steps"]) if last is not None else 0,
                "labels": int(last["labels"]) if last is not None else 0,
                "final_return": round(trial_of(record).final, 2) if finished else None,
                "wall_s": round(float(last["wall_s"]), 1) if last is not None else None,
            }
        )
    return rows


def verdict(arm: dict[str, object], rows: list[dict[str, object]]) -> dict[str, object]:
    """What was asked of the arm and what came; a failed seed scores minus infinity."""
    scores = [row["final_return"] if row["final_return"] is not None else float("-inf") for row in rows]
    value = min(scores) if arm.get("of") == "every" else median(scores)
    return {
        "arm": arm["name"],
        "seeds": len(rows),
        "failed_seeds": sum(row["final_return"] is None for row in rows),
        "asked": f"{arm['of']} >= {arm['at_least']}" if "of" in arm else "nothing",
        "median": round(median(scores), 1),
        "lowest": round(min(scores), 1),
        "highest": round(max(scores), 1),
        "median_wall_s": median(row["wall_s"] or 0.0 for row in rows),
        "met": value >= arm.get("at_least", float("-inf")),
    }


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("suite", nargs="?", default="foundation", help="name of a file in benchmarks/suites")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder for the runs")
    asked = parser.parse_args()
    suite = yaml.safe_load((SUITES / f"{asked.suite}.yaml").read_text())
    launch = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = asked.out / asked.suite / launch
    for words in suite.get("prepare", []):
        sailctl(*words_of(words, folder))
    rows, verdicts = [], []
    for arm in suite["arms"]:
        out = folder / arm["name"].replace(" ", "-")
        sweep = ["seed=" + ",".join(map(str, suite["seeds"])), f"out={out}"]
        sailctl("train", "-m", *words_of(arm["overrides"], folder), *sweep)
        rows += rows_of(arm, suite["seeds"], out)
        verdicts.append(verdict(arm, rows[-len(suite["seeds"]) :]))
    write(asked.results, f"learning_{asked.suite}", rows, {"what": __doc__, "suite": suite})
    write(asked.results, f"learning_{asked.suite}_summary", verdicts, {"what": __doc__, "suite": suite})
    return 0 if all(row["met"] for row in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
