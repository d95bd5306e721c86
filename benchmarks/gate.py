"""Measures the gate of `sailctl regress`: false alarms without a change, and bugs made on purpose.

A repetition is what the gate does: the runs of one protocol, with seeds of their own, against the committed
baseline. Repetitions without a change share no run and count false alarms. Each bug is put into the code in
the process that trains, nowhere else. Golden trajectories are computed with each bug, and without one under
other instruction sets, which shows what a processor alone does to them.

Runs are kept in --runs, and a launch that was stopped goes on with what is missing there.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np

from benchmarks.record import RESULTS, arguments, write
from sailctl.algorithms import actor, learner
from sailctl.analysis.evidence import Trial
from sailctl.analysis.statistics import proportion
from sailctl.analysis.trials import load_trials
from sailctl.config import ActionsConfig, AlgoConfig
from sailctl.core.types import DoubleArray, RunError
from sailctl.gate import golden
from sailctl.gate.baselines import Baseline, load_baseline
from sailctl.gate.ranksum import mean_difference, operating, scores_of, worse_p
from sailctl.objectives import kl_penalty, sail
from sailctl.preferences.asker import Asker
from sailctl.sweeps.compose import compose_jobs
from sailctl.training.train import train

FIRST_SEED = 10_000
RESAMPLES = 10_000
PROCESSORS = {
    "ATen without vector instructions": {"ATEN_CPU_CAPABILITY": "default"},
    "ATen with AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN limited to SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "MKL of another code path": {"MKL_CBWR": "COMPATIBLE"},
    "numpy without AVX-512": {"NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX"},
    "OpenBLAS for Sandy Bridge": {"OPENBLAS_CORETYPE": "SANDYBRIDGE"},
    "C library without FMA and AVX2": {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F"},
}


# Bugs, made on purpose


def wrong_sign_of_t2() -> AbstractContextManager[object]:
    """T2 with a minus sign, on segments and on actions."""
    on_segments, on_actions = sail.score_function_terms, actor.pathwise_action_loss

    def wrong_on_segments(losses, *, c, group, drawn):
        return on_segments(losses, c=-c, group=group, drawn=drawn)

    def wrong_on_actions(q, logp, ref_logp, *, c, **others):
        return on_actions(q, logp, ref_logp, c=-c, **others)

    patches = ExitStack()
    patches.enter_context(patch.object(sail, "score_function_terms", wrong_on_segments))
    patches.enter_context(patch.object(actor, "pathwise_action_loss", wrong_on_actions))
    return patches


def wrong_sign_of_kl() -> AbstractContextManager[object]:
    """A penalty that drives the policy away from its reference."""

    def wrong(direction, *densities):
        return -kl_penalty(direction, *densities)

    patches = ExitStack()
    for module in (learner, actor):
        patches.enter_context(patch.object(module, "kl_penalty", wrong))
    return patches


def settings_changed(**changes: Callable[[float], float]) -> AbstractContextManager[object]:
    """Other settings than those asked for, wherever a policy is updated."""
    patches = ExitStack()
    for owner in (learner.Learner, actor.Actor):
        patches.enter_context(patch.object(owner, "__init__", _with_changed(owner.__init__, changes)))
    return patches


def _with_changed(right, changes):
    def wrong(self, *given):
        changed = [
            replace(each, **{name: change(getattr(each, name)) for name, change in changes.items()})
            if isinstance(each, AlgoConfig | ActionsConfig)
            else each
            for each in given
        ]
        right(self, *changed)

    return wrong


def teacher_that_flips() -> AbstractContextManager[object]:
    """One answer in five is wrong."""
    right = Asker.__init__

    def wrong(self, oracle, *others):
        right(self, replace(oracle, mistake=0.2), *others)

    return patch.object(Asker, "__init__", wrong)


CONDITIONS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "clean": nullcontext,
    "t2_sign": wrong_sign_of_t2,
    "kl_sign": wrong_sign_of_kl,
    "gamma_ignored": lambda: settings_changed(gamma=lambda weight: 0 * weight),
    "lr_x3": lambda: settings_changed(lr=lambda lr: 3 * lr),
    "stale_reference": lambda: settings_changed(reference_interval=lambda interval: 0 * interval),
    "flips_20": teacher_that_flips,
}


# Return gate


def run_of(runs: Path, condition: str, seed: int) -> Path | None:
    """The kept run of a seed, if it has ended."""
    for place in (runs / condition).glob(f"*/*/*-s{seed}"):
        status = place / "status.json"
        if status.is_file() and json.loads(status.read_text())["state"] in ("finished", "failed"):
            return place
        shutil.rmtree(place)
    return None


def train_one(runs: Path, condition: str, overrides: list[str], seed: int) -> None:
    """One run with the bug, unless it is there already."""
    if run_of(runs, condition, seed) is not None:
        return
    quiet = ["logger.wandb=disabled", "logger.progress=false", f"seed={seed}", f"out={runs / condition}"]
    (job,) = compose_jobs([*overrides, *quiet]).jobs
    with CONDITIONS[condition]():
        try:
            train(job.config, job.overrides)
        except RunError as error:
            print(f"{condition}, seed {seed} failed: {error}", flush=True)


def rows_of(condition: str, baseline: Baseline, groups: list[list[Trial]]) -> list[dict[str, object]]:
    """One row per repetition."""
    theirs, protocol = scores_of(baseline.trials), baseline.protocol
    rows = []
    for number, trials in enumerate(groups):
        ours = scores_of(trials)
        p = worse_p(ours, theirs)
        rows.append(
            {
                "condition": condition,
                "repetition": number,
                "first_seed": trials[0].seed,
                "failed_runs": int(np.isinf(ours).sum()),
                "mean_score": round(float(ours[np.isfinite(ours)].mean()), 4),
                "p": round(p, 6),
                "fails": p <= protocol.alpha,
            }
        )
    return rows


def untrained(baseline: Baseline) -> float:
    """Mean return before training."""
    return float(np.mean([trial.returns[0] for trial in baseline.trials]))


def resampled(scores: DoubleArray, size: int, theirs: DoubleArray, alpha: float) -> float:
    """Share of gates that fail when each draws its runs from all runs of a condition."""
    rng = np.random.default_rng(0)
    drawn = (rng.choice(scores, size, replace=False) for _ in range(RESAMPLES))
    return float(np.mean([worse_p(ours, theirs) <= alpha for ours in drawn]))


# Golden trajectories


def golden_rows(
    condition: str, now: golden.Trajectories, stored: golden.Trajectories
) -> list[dict[str, object]]:
    return [
        {
            "condition": condition,
            "algorithm": drift.algorithm,
            "series": drift.series,
            "largest_drift": drift.largest,
            "mean_drift": drift.mean,
            "passes": drift.passes,
        }
        for drift in golden.drifts(stored, now)
    ]


def trajectories_under(environment: dict[str, str]) -> golden.Trajectories:
    """Golden trajectories of a process with other environment variables."""
    code = (
        "import pickle, sys; from sailctl.gate import golden; "
        "pickle.dump(golden.trajectories(golden.names()), open(sys.argv[1], 'wb'))"
    )
    with TemporaryDirectory() as folder:
        file = Path(folder) / "found"
        subprocess.run([sys.executable, "-c", code, file], env={**os.environ, **environment}, check=True)
        found: golden.Trajectories = pickle.loads(file.read_bytes())
    return found


def trajectories_with(condition: str) -> golden.Trajectories:
    with CONDITIONS[condition]():
        return golden.trajectories(golden.names())


# All of it


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "--baseline",
        type=Path,
        default=RESULTS / "baselines" / "reacher-v5-sail_revkl_segments-50k.csv",
        help="its CSV",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks/gate"), help="folder of the runs")
    parser.add_argument("--name", default="gate", help="begins the names of the results")
    parser.add_argument("--clean", type=int, default=40, help="repetitions without a change")
    parser.add_argument("--broken", type=int, default=4, help="repetitions with each bug")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    asked = parser.parse_args()
    baseline = load_baseline(asked.baseline)
    size, alpha = len(baseline.protocol.gate_seeds), baseline.protocol.alpha

    repetitions = {name: asked.clean if name == "clean" else asked.broken for name in CONDITIONS}
    seeds = {
        name: [[FIRST_SEED + size * number + i for i in range(size)] for number in range(count)]
        for name, count in repetitions.items()
    }
    with ProcessPoolExecutor(asked.jobs, get_context("spawn")) as pool:
        runs = [
            pool.submit(train_one, asked.runs, name, baseline.protocol.overrides, seed)
            for name, groups in seeds.items()
            for group in groups
            for seed in group
        ]
        with_bug = {name: pool.submit(trajectories_with, name) for name in CONDITIONS}
        elsewhere = {name: pool.submit(trajectories_under, given) for name, given in PROCESSORS.items()}
        for run in runs:
            run.result()

    theirs, start = scores_of(baseline.trials), untrained(baseline)
    gain = float(theirs[np.isfinite(theirs)].mean()) - start
    stored = golden.load(asked.baseline.parent / "golden.csv")
    each, drifts, summary = [], [], []
    commits: set[str] = set()
    for name, groups in seeds.items():
        trials = [[load_trials([run_of(asked.runs, name, seed)])[0] for seed in group] for group in groups]
        commits |= {
            f"{one.origin['commit']} dirty={one.origin['dirty']}" for group in trials for one in group
        }
        rows = rows_of(name, baseline, trials)
        own = golden_rows(name, with_bug[name].result(), stored)
        ours = scores_of([one for group in trials for one in group])
        caught = proportion(sum(bool(row["fails"]) for row in rows), len(rows))
        apart = mean_difference(ours, theirs, start)
        caught_by_golden = not all(row["passes"] for row in own)
        summary.append(
            {
                "condition": name,
                "repetitions": len(rows),
                "runs": len(ours),
                "failed_runs": int(np.isinf(ours).sum()),
                "lost_share_of_gain": round(-apart.value / gain, 4),
                "lost_low": round(-apart.high / gain, 4),
                "lost_high": round(-apart.low / gain, 4),
                "return_gate_fails": round(caught.value, 4),
                "fails_low": round(caught.low, 4),
                "fails_high": round(caught.high, 4),
                "fails_resampled": round(resampled(ours, size, theirs, alpha), 4),
                "golden_fails": caught_by_golden,
                "golden_largest_drift": max(float(str(row["largest_drift"])) for row in own),
                "golden_algorithms_moved": len({row["algorithm"] for row in own if not row["passes"]}),
            }
        )
        each += rows
        drifts += own
    for name, found in elsewhere.items():
        drifts += golden_rows(name, found.result(), stored)

    known = operating(theirs, size, alpha, gain)
    about = {
        "what": __doc__,
        "protocol": vars(baseline.protocol),
        "baseline_seeds": len(theirs),
        "gain": gain,
        "simulated_false_alarms": vars(known.false_alarms),
        "smallest_drop_caught_with_80_percent": known.caught,
        "golden_tolerance": golden.TOLERANCE,
        "commits_of_the_runs": sorted(commits),
    }
    write(asked.results, f"{asked.name}_repetitions", each, about)
    write(asked.results, f"{asked.name}_golden", drifts, {**about, "processors": PROCESSORS})
    write(asked.results, asked.name, summary, about)


if __name__ == "__main__":
    main()
