"""The gate for continuous integration: tests whether a change of the code made learning worse.

A baseline is a pair of small files, ``<task>-<algorithm>-<name>.csv`` (curves of many seeds) and ``.json``
(the protocol, the reason of every update, provenance). The gate trains other seeds by the same protocol and
tests whether their final scores are lower than those of the baseline, by an exact one-sided rank-sum test
(Wilcoxon 1945, Mann and Whitney 1947) on one score that is fixed in advance. A failed run ranks lowest. The
false-alarm rate and the smallest detected drop are estimated from the baseline.

A folder of baselines also holds golden trajectories (``golden.csv``, see ``golden``), which must match.

Exit codes: 0 not worse, 1 worse or different numbers, 2 could not judge. See docs/regress.md.
"""

from __future__ import annotations

import math
import os
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sailctl.analysis.evidence import Trial, flat_settings, shared_settings
from sailctl.analysis.statistics import TOO_FEW
from sailctl.analysis.trials import load_trials, save_trials
from sailctl.config import RunConfig, to_dict
from sailctl.core.types import DoubleArray, RunError, UserError
from sailctl.core.words import show
from sailctl.gate import golden
from sailctl.gate.baselines import GOLDEN, Baseline, Protocol, find_baselines, load_baseline
from sailctl.gate.ranksum import DRAWS, POWER, mean_difference, operating, scores_of, too_few, worse_p
from sailctl.runs.provenance import provenance
from sailctl.sweeps.compose import compose_jobs
from sailctl.training.train import train

FIRST_GATE_SEED = 1000
"""First seed of the gate. Seeds of baselines are smaller, because a common seed gives the same run."""

BASELINE_SEEDS, GATE_SEEDS, ALPHA = 40, 8, 0.01
"""Defaults of a new baseline."""

_QUIET = ("logger.wandb=disabled", "logger.tensorboard=false", "logger.progress=false")
_RESERVED = ("seed", "out", "logger")


def check(
    places: Sequence[Path], out: Path | None = None, jobs: int | None = None, overlay: Path | None = None
) -> int:
    """Run the protocols of all baselines in ``places``, test the results, and print a report.

    Args:
        places: baseline files, or folders of them.
        out: folder that keeps the runs; None uses a temporary folder.
        jobs: number of parallel runs; None for one per core.
        overlay: a user's own folder of config groups.

    Returns:
        0 not worse, 1 worse, 2 could not judge; 1 takes precedence over 2.

    Raises:
        UserError: when there is no baseline.
    """
    files = find_baselines(places)
    try:
        with TemporaryDirectory() as temporary:
            verdicts = [_guarded(file, _folder(out, temporary, file), jobs, overlay) for file in files]
    except KeyboardInterrupt:
        print("\ninterrupted: could not judge")
        return 2
    code = 1 if 1 in verdicts else max(verdicts)
    counts = ", ".join(f"{verdicts.count(v)} {name}" for v, name in enumerate(_VERDICTS) if v in verdicts)
    print(f"\nsailctl regress: {counts} (exit code {code})")
    return code


def update(
    places: Sequence[Path],
    reason: str,
    out: Path | None = None,
    jobs: int | None = None,
    overlay: Path | None = None,
) -> int:
    """Regenerate all baselines in ``places`` with their own protocols and seeds, and record the reason.

    Raises:
        UserError: without a reason, without a baseline, or when a baseline cannot be written.
        RunError: when a run cannot start.
    """
    reason = _one_line(reason)
    with TemporaryDirectory() as temporary:
        for file in find_baselines(places):
            if file.name == GOLDEN:
                _write_golden(file, reason, overlay)
                continue
            old = load_baseline(file)
            seeds = [trial.seed for trial in old.trials]
            folder = _folder(out, temporary, file)
            _write(file, old.protocol, seeds, old.history, reason, folder, jobs, overlay)
    return 0


def create(
    folder: Path,
    protocol: Protocol,
    seeds: Sequence[int],
    reason: str,
    out: Path | None = None,
    jobs: int | None = None,
    overlay: Path | None = None,
) -> int:
    """Create the first baseline of a protocol in ``folder``, and golden trajectories if there are none.

    Raises:
        UserError: without a reason, when the baseline exists, or when the protocol has too few seeds.
        RunError: when a run cannot start.
    """
    reason = _one_line(reason)
    config = compose(protocol, overlay)
    file = folder / f"{config.env.id}-{config.algo.name}-{protocol.name}.csv"
    if file.exists():
        raise UserError(f"{file} exists; update it without --new, or choose another name")
    if shared := sorted({*seeds} & {*protocol.gate_seeds}):
        raise UserError(f"seed {shared[0]} is both a gate seed and a baseline seed; they must be disjoint")
    if problem := too_few(len(protocol.gate_seeds), len(seeds), protocol.alpha):
        raise UserError(problem)
    with TemporaryDirectory() as temporary:
        _write(file, protocol, seeds, [], reason, _folder(out, temporary, file), jobs, overlay)
    if not (folder / GOLDEN).exists():
        _write_golden(folder / GOLDEN, reason, overlay)
    return 0


def compose(protocol: Protocol, overlay: Path | None = None) -> RunConfig:
    """Compose the configuration of a protocol.

    Raises:
        UserError: when it does not compose, or sets a seed, folder or logger.
    """
    for word in protocol.overrides:
        if word.split("=")[0].split(".")[0] in _RESERVED:
            raise UserError(f"{word}: a protocol cannot set seed, out or logger; the gate sets them")
    (job,) = compose_jobs([*protocol.overrides, *_QUIET], overlay=overlay).jobs
    return job.config


def changed_settings(then: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """``key: old -> new`` for each changed or removed setting; a new key is not a change."""
    return [
        f"{key}: {show(value)} -> {show(now[key]) if key in now else 'gone'}"
        for key, value in then.items()
        if key not in now or now[key] != value
    ]


_VERDICTS = ("not worse", "worse", "could not judge")


def _guarded(file: Path, out: Path, jobs: int | None, overlay: Path | None) -> int:
    """The verdict on one file; an error is printed and counts as 2, so that the others are still tested."""
    print(f"\n{file}")
    try:
        if file.name == GOLDEN:
            return _check_golden(file, overlay)
        return _check_baseline(load_baseline(file), out, jobs, overlay)
    except UserError as error:
        print(f"  verdict    COULD NOT JUDGE: {error}")
    except BrokenProcessPool:
        print("  verdict    COULD NOT JUDGE: a training process died (possibly out of memory; try --jobs 1)")
    return 2


def _check_baseline(baseline: Baseline, out: Path, jobs: int | None, overlay: Path | None) -> int:
    protocol, latest = baseline.protocol, baseline.latest
    if problem := too_few(len(protocol.gate_seeds), len(baseline.trials), protocol.alpha):
        raise UserError(problem)
    config = compose(protocol, overlay)
    settings = {key: value for key, value in shared_settings(baseline.trials).items() if config.reads(key)}
    if changed := changed_settings(settings, flat_settings(to_dict(config))):
        raise UserError(
            f"the settings have changed ({', '.join(changed)}); if intended: sailctl regress --update REASON"
        )
    theirs = scores_of(baseline.trials)
    if not np.isfinite(theirs).any():
        raise UserError("no run of the baseline finished; update it: sailctl regress --update REASON")
    untrained = float(np.mean([trial.returns[0] for trial in baseline.trials if trial.finished]))
    gain = float(theirs[np.isfinite(theirs)].mean()) - untrained
    print(f"  protocol   {' '.join(protocol.overrides)}")
    print(
        f"  baseline   {_summary(theirs)}, untrained {untrained:.4g}; of {str(latest['date'])[:10]}, "
        f"commit {str(latest['commit'])[:7]}, {latest['cpu']}: {latest['reason']}"
    )
    start = time.monotonic()
    ours = _scores(run_seeds(config, protocol.overrides, protocol.gate_seeds, out, jobs))
    seconds = time.monotonic() - start
    characteristics = operating(theirs, len(ours), protocol.alpha, gain)
    p = worse_p(ours, theirs)
    change = mean_difference(ours, theirs, untrained)
    interval = f"[{change.low:+.4g}, {change.high:+.4g}]" if math.isfinite(change.low) else f"({TOO_FEW})"
    print(f"  now        {_summary(ours)}; difference {change.value:+.4g} {interval}")
    rate = characteristics.false_alarms
    print(f"  test       rank sum, lower than the baseline: p = {p:.4f}, fails at alpha = {protocol.alpha:g}")
    print(
        f"  this test  gives a false alarm in {rate.value:.2%} [{rate.low:.2%}, {rate.high:.2%}] of {DRAWS} "
        "simulated gate runs,"
    )
    if math.isfinite(characteristics.caught):
        print(
            f"             and detects a drop of {characteristics.caught:.1%} of the gain in training "
            f"({characteristics.caught * gain:.3g}) with probability {POWER:.0%}"
        )
    else:
        print("             and may miss even the loss of the whole gain in training: it needs more seeds")
    print(f"  cost       {seconds:.0f} s for {len(ours)} runs")
    verdict = int(p <= protocol.alpha)
    print(f"  verdict    {'WORSE than the baseline' if verdict else 'OK: not worse than the baseline'}")
    if worse_p(-ours, -theirs) <= protocol.alpha:
        print(
            "             better than the baseline: sailctl regress --update REASON makes it the new baseline"
        )
    return verdict


def _scores(outcomes: Mapping[int, Trial | str]) -> DoubleArray:
    """Final scores of the seeds; a run that could not start counts as failed."""
    runs = outcomes.values()
    return np.array([-math.inf if isinstance(run, str) else scores_of([run])[0] for run in runs])


def _summary(scores: DoubleArray) -> str:
    finite = scores[np.isfinite(scores)]
    failed = f", {len(scores) - len(finite)} failed" if len(finite) < len(scores) else ""
    spread = f" (sd {finite.std(ddof=1):.3g})" if len(finite) > 1 else ""
    mean = f"final score {finite.mean():.4g}{spread}" if len(finite) else "no score"
    return f"{len(scores)} seeds{failed}, {mean}"


def run_seeds(
    config: RunConfig, overrides: Sequence[str], seeds: Sequence[int], out: Path, jobs: int | None
) -> dict[int, Trial | str]:
    """Train every seed below ``out`` in parallel, and print the score of each.

    Returns:
        By seed, its run, also if it failed; or an error message if it left no run directory.
    """
    configs = [replace(config, seed=seed, threads=1, out=str(out)) for seed in seeds]
    workers = min(jobs or os.cpu_count() or 1, len(configs))
    outcomes: dict[int, Trial | str] = {}
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        try:
            runs = [pool.submit(_train, one, [*overrides, f"seed={one.seed}"]) for one in configs]
            for run in as_completed(runs):
                seed, place, error = run.result()
                outcomes[seed] = str(error) if place is None else load_trials([place])[0]
                score = _scores({seed: outcomes[seed]})[0]
                print(f"  seed {seed:<6} {f'failed: {error}' if error else f'{score:.4g}'}", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {seed: outcomes[seed] for seed in seeds}


def _train(config: RunConfig, words: list[str]) -> tuple[int, Path | None, str | None]:
    """Train one run in a separate process; returns its seed, run directory (or None) and error (or None)."""
    place = Path(config.out) / config.env.id / config.algo.name
    error = None
    try:
        train(config, words)
    except UserError:  # invalid settings are not a failed run
        raise
    except RunError as failure:
        error = str(failure)
    except Exception as failure:  # a change that breaks runs counts as worse learning
        traceback.print_exc()
        error = f"{type(failure).__name__}: {' '.join(str(failure).split())}"
    return config.seed, next(place.glob(f"*-s{config.seed}"), None), error


def _check_golden(file: Path, overlay: Path | None) -> int:
    stored, names = golden.load(file), golden.names(overlay)
    if missing := sorted({*stored} ^ {*names}):
        raise UserError(
            f"{missing[0]} has no golden trajectory, or was removed; sailctl regress --update REASON {file}"
        )
    start = time.monotonic()
    try:
        drifts = golden.drifts(stored, golden.trajectories(names, overlay))
    except UserError:
        raise
    except Exception as error:  # a broken algorithm does not match its trajectory
        traceback.print_exc()
        print(f"  verdict    WORSE: {type(error).__name__}: {' '.join(str(error).split())}")
        return 1
    print(f"  drift over the first {golden.UPDATES} updates, relative to the root mean square of the series:")
    width = max(map(len, stored)) + 2
    for name in stored:
        of_name = [drift for drift in drifts if drift.algorithm == name]
        cells = [f"{d.series} max {d.largest:.1e}, mean {d.mean:.1e}" for d in of_name]
        mark = "" if all(drift.passes for drift in of_name) else "   <- too far"
        print(f"  {name:<{width}}{'   '.join(cells)}{mark}")
    limits = f"max {golden.TOLERANCE['max']:g}, mean {golden.TOLERANCE['mean']:g}"
    print(f"  cost       {time.monotonic() - start:.0f} s; tolerance: {limits}")
    verdict = int(not all(drift.passes for drift in drifts))
    print(f"  verdict    {'OTHER NUMBERS than the stored ones' if verdict else 'OK: the stored numbers'}")
    return verdict


def _write_golden(file: Path, reason: str, overlay: Path | None) -> None:
    history = [*golden.history(file), _entry(reason)] if file.exists() else [_entry(reason)]
    results = golden.trajectories(golden.names(overlay), overlay)
    golden.save(results, file, {"history": history})
    print(f"{file}: {len(results)} trajectories, {golden.UPDATES} updates each")


def _write(
    file: Path,
    protocol: Protocol,
    seeds: Sequence[int],
    history: Sequence[dict[str, object]],
    reason: str,
    out: Path,
    jobs: int | None,
    overlay: Path | None,
) -> None:
    print(f"{file}: {len(seeds)} seeds of {' '.join(protocol.overrides)}")
    outcomes = run_seeds(compose(protocol, overlay), protocol.overrides, seeds, out, jobs)
    trials = []
    for seed, outcome in outcomes.items():
        if isinstance(outcome, str):
            raise RunError(f"no baseline was written: seed {seed} could not start: {outcome}")
        trials.append(outcome)
    about = {"protocol": vars(protocol), "history": [*history, _entry(reason)]}
    save_trials(trials, file, about)
    print(f"{file}: {_summary(scores_of(trials))}")


def _entry(reason: str) -> dict[str, object]:
    now = provenance([])
    git = now["git"]
    commit, dirty = (git["commit"], git["dirty"]) if isinstance(git, dict) else (None, None)
    return {"reason": reason, "date": now["started"], "commit": commit, "dirty": dirty, "cpu": now["cpu"]}


def _one_line(reason: str) -> str:
    reason = " ".join(reason.split())
    if not reason:
        raise UserError("--update needs a reason, which is recorded with the baseline")
    return reason


def _folder(out: Path | None, temporary: str, file: Path) -> Path:
    """The new folder for the runs of one baseline.

    Raises:
        UserError: when it exists, because its runs would be mistaken for new ones.
    """
    folder = Path(temporary if out is None else out) / file.stem
    if folder.exists():
        raise UserError(f"{folder} exists; --out needs a folder without earlier runs")
    return folder
