"""The protocols of ``results/protocols``: for each, one command trains all arms, compares and reports them.

Arms of a protocol have the same budget of env steps and the same seeds. Tasks, seeds and budget can be made
smaller than asked here; what was run is in the record beside the results. A run that fails stays in the
denominator. The defaults (eight tasks, ten seeds, a million env steps) are days on two cores.
"""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import record
from benchmarks.missing import ids_of, key, missing_sweeps, saved_runs
from benchmarks.record import RESULTS
from benchmarks.stability import write_stability
from sailctl.analysis.evidence import AXES, FINAL_EVALUATIONS, Trial
from sailctl.analysis.statistics import mean
from sailctl.analysis.trials import load_trials, save_trials
from sailctl.core.types import DoubleArray, UserError
from sailctl.objectives import effective_beta
from sailctl.policies.references import read_references, scale_of_references

C = "algo.c=0.003"
"""T1's weight goes with beta and T2's does not: a c that does keeps the default's balance of the two."""
PENALISED = ("algo.gamma=0.01", "algo.radius=60")
"""A gamma found in looks (docs/protocols.md), and a ball that holds every reference policy."""
AS_COMMITTED = ("algo.target_kl=null", "reward.cut=0")
"""The results from scratch are older than these two settings: without them their command still makes them."""
KEPT = ("algo.reference_interval=0", "algo.observe=0")
"""The reference policy stays the one that training began with, and so do the observation statistics."""
MISTAKEN = ("experiment=alignment_segments", *KEPT, "oracle.mistake=0,0.1,0.2,0.3,0.4")
"""Those results are older than the reference of ``experiment=alignment_segments`` that moves."""
ASKED = "oracle.budget=1000"
"""As many answers as in ``experiment=alignment``."""
ITERATIONS = 120
"""Iterations within which a budget of labels is spent: 2,560 env steps each."""


EQUAL_BETA = effective_beta(beta=0.3, gamma=0.1)
"""The beta of SAIL that is as strong, near the reference, as beta and gamma of ``algo=sail_revkl``."""


@dataclass(frozen=True)
class Protocol:
    """What is trained, and how it is compared."""

    what: str
    sweeps: tuple[tuple[str, ...], ...]
    """Words of ``sailctl train -m`` beside tasks, seeds and budget; each sweep brings some of the arms."""
    compare: tuple[str, ...]
    """Words of ``sailctl compare`` and ``sailctl report``."""
    tasks: tuple[str, ...] = tuple(read_references())
    """What is trained on where nothing else is asked for."""


def every(*patterns: str) -> tuple[str, ...]:
    """Words of ``sailctl compare`` by which settings of these patterns are what is compared."""
    return tuple(word for pattern in patterns for word in ("--by", pattern))


def from_reference(level: str, *words: str) -> tuple[tuple[str, ...], ...]:
    """Sweeps of four algorithms from a reference policy, with labels that look ahead."""
    common = ("experiment=alignment_segments", f"algo.reference={level}", *words)
    return (
        ("algo=sail_segments,sail_robust_segments", C, *common),
        ("algo=sail_revkl_segments", C, *PENALISED, *common),
        ("algo=dpo_online_segments", *common),
    )


def asking(budget: int) -> tuple[str, ...]:
    """A sweep from scratch with so many of the teacher's answers, given within the first 300,000 env steps.

    An iteration asks at least 8 questions: the first must tell more than a guess. When all are answered the
    reward model goes on by itself.
    """
    queries = max(8, -(-budget // ITERATIONS))
    return (
        "experiment=value",
        "algo=sail_revkl_segments",
        f"algo.name=labels_{budget}",
        f"algo.queries={queries}",
        f"oracle.budget={budget}",
    )


PROTOCOLS = {
    "actions": Protocol(
        "alignment on single actions from the medium reference policy: SAIL-RevKL, SAIL with the same beta, "
        "and SAIL with the beta that the penalty amounts to",
        (
            ("experiment=alignment", "algo=sail,sail_revkl"),
            ("experiment=alignment", "algo=sail", "algo.name=sail_equal_beta", f"algo.beta={EQUAL_BETA:g}"),
        ),
        ("--baseline", "sail"),
    ),
    "actions_scratch": Protocol(
        "from scratch on single actions, with 1,000 labels: SAIL, SAIL-RevKL and PEBBLE; and with the true "
        "reward SAIL-RevKL, and SAC with as many updates on networks of the same size",
        (
            ("algo=sail,sail_revkl", ASKED),
            ("algo=pebble", ASKED),
            ("algo=sail_revkl", "algo.name=sail_revkl_teacher", "algo.reward=teacher"),
            (
                "algo=sac",
                "algo.updates=0.5",
                "algo.hidden=[128,128]",
                "algo.envs=20",
                "algo.learning_starts=5000",
            ),
        ),
        ("--baseline", "sac"),
    ),
    "alignment": Protocol(
        "alignment from the medium reference policy: SAIL, SAIL-RevKL, online DPO and robust SAIL",
        from_reference("medium"),
        ("--baseline", "sail_segments"),
    ),
    "alignment_kept": Protocol(
        "the same, with the one reference for good",
        from_reference("medium", *KEPT),
        ("--baseline", "sail_segments"),
    ),
    "alignment_expert": Protocol(
        "alignment from the expert: what is kept of it",
        from_reference("expert"),
        ("--baseline", "sail_segments"),
    ),
    "scratch": Protocol(
        "from scratch: SAIL and SAIL-RevKL with labels that look ahead, SAIL-RevKL with the teacher's own, "
        "and PPO with the true reward",
        (
            ("experiment=value", "algo=sail_segments,sail_revkl_segments", *AS_COMMITTED),
            ("algo=sail_revkl_segments", "algo.name=sail_revkl_direct", *AS_COMMITTED),
            ("algo=ppo",),
        ),
        # Labels that look ahead are of short segments: in as many env steps there are more of them, which
        # --force overrules.
        (*every("algo.*", "policy.*", "reward.*", "rollout.*"), "--baseline", "ppo", "--force"),
    ),
    "labels": Protocol(
        "how far few answers carry, from scratch: SAIL-RevKL with labels that look ahead",
        tuple(asking(budget) for budget in (100, 250, 500, 1000, 10_000)),
        (*every("algo.*", "oracle.budget"), "--baseline", "labels_10000"),
        tasks=("cheetah_run", "walker_walk", "walker_stand", "hopper-v5"),
    ),
    "teachers_mistaken": Protocol(
        "teachers whose answers are flipped, from the medium reference policy",
        (
            ("algo=sail_segments,sail_robust_segments", C, *MISTAKEN),
            ("algo=sail_revkl_segments", C, *PENALISED, *MISTAKEN),
        ),
        (*every("algo.*", "oracle.mistake"), "--baseline", "sail_segments oracle.mistake=0.0"),
    ),
    "map_gamma": Protocol(
        "strength of the penalty, from a medium policy with much noise and from one with little",
        (
            (
                "experiment=alignment_segments",
                "algo=sail_revkl_segments",
                C,
                "algo.radius=60",
                "algo.gamma=0,0.003,0.01",
            ),
        ),
        ("--by", "algo.gamma", "--baseline", "sail_revkl_segments algo.gamma=0.0"),
        tasks=("hopper-v5", "walker_stand"),
    ),
    "map_gamma_beta": Protocol(
        "strength of the penalty against scale of the score, from the medium reference policy",
        (
            (
                "experiment=alignment_segments",
                "algo=sail_revkl_segments",
                C,
                "algo.radius=60",
                "algo.gamma=0,0.003,0.01,0.03,0.1",
                "algo.beta=0.01,0.1",
            ),
        ),
        (
            *every("algo.gamma", "algo.beta"),
            "--baseline",
            "sail_revkl_segments algo.beta=0.01 algo.gamma=0.0",
        ),
    ),
}


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "protocol", choices=list(PROTOCOLS), help="; ".join(p.what for p in PROTOCOLS.values())
    )
    parser.add_argument("--tasks", nargs="+", help="tasks with references (default: those of the protocol)")
    parser.add_argument("--algorithms", nargs="+", help="of the protocol's; all when none is named")
    parser.add_argument("--seeds", type=int, default=10, help="seeds of each arm")
    parser.add_argument(
        "--env-steps", type=int, default=1_000_000, help="simulated control steps of each run"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/protocols"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS / "protocols", help="folder of the results")
    parser.add_argument(
        "--equal-cost",
        action="store_true",
        help="only the scores at equal cost, from the curves in the results",
    )
    asked = parser.parse_args()

    protocol = PROTOCOLS[asked.protocol]
    runs, results = asked.runs / asked.protocol, asked.results / asked.protocol
    saved = results / "runs.csv"
    if asked.equal_cost:
        write_equal_cost(saved)
        return
    common = [
        f"env_steps={asked.env_steps}",
        f"evaluation.every={max(1, asked.env_steps // 10)}", "evaluation.episodes=5",
        "logger.wandb=disabled", f"out={runs}",
    ]  # fmt: skip
    known = names_of(protocol)
    if unknown := sorted({*(asked.algorithms or ())} - {*known}):
        parser.error(f"{asked.protocol} has no {', '.join(unknown)}; its algorithms are {', '.join(known)}")
    chosen = asked.tasks or protocol.tasks
    every_task = f"env={','.join(dict.fromkeys([*protocol.tasks, *chosen]))}"
    everything = [[*sweep, every_task, *common] for sweep in protocol.sweeps]
    try:
        earlier = saved_runs(saved, {one for sweep in everything for one in ids_of(sweep)})
    except UserError as error:
        parser.error(str(error))
    for sweep in swept(protocol, asked.algorithms):
        sweep_of_tasks = [*sweep, f"env={','.join(chosen)}", *common]
        for words in missing_sweeps(sweep_of_tasks, asked.seeds, {key(trial) for trial in earlier}):
            sailctl("train", "-m", *words, check=False)  # a failed run is a result
    places = [runs] if runs.is_dir() else []
    trained = load_trials(places)
    if others := [trial for trial in earlier if key(trial) not in {key(trial) for trial in trained}]:
        save_trials(others, runs / "earlier.csv")
        places.append(runs / "earlier.csv")
    words = compared(protocol, {trial.algorithm for trial in [*trained, *others]})
    written = runs / "compared.csv"
    written.unlink(missing_ok=True)
    sailctl("compare", *map(str, places), *words, "--save", str(written))
    saved.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".csv", ".json"):  # what was saved before is in them
        written.with_suffix(suffix).replace(saved.with_suffix(suffix))
    sailctl("report", str(saved), *words, "--out", str(results / "report.html"), "--wandb", "disabled")
    write_stability(results)
    if asked.protocol == "scratch":
        write_equal_cost(saved)


def write_equal_cost(saved: Path) -> None:
    """Write ``equal_cost.csv`` beside the curves of the protocol ``scratch``."""
    rows = at_equal_cost(load_trials([saved]), baseline="ppo")
    about = {"runs": saved.name, "last evaluations": FINAL_EVALUATIONS}
    record.write(saved.parent, "equal_cost", rows, about)


def compared(protocol: Protocol, algorithms: Set[str]) -> list[str]:
    """Words of ``sailctl compare``, without the baseline where it has not been trained yet."""
    words = list(protocol.compare)
    at = words.index("--baseline")
    if words[at + 1].split()[0] not in algorithms:
        del words[at : at + 2]
    return words


def arms_of(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """File of ``conf/algo`` and name of each algorithm of a sweep; ``algo.name`` renames a single one."""
    files = next(word for word in words if word.startswith("algo=")).removeprefix("algo=").split(",")
    renamed = [word.removeprefix("algo.name=") for word in words if word.startswith("algo.name=")]
    return list(zip(files, renamed or files, strict=True))


def names_of(protocol: Protocol) -> list[str]:
    """Names of the algorithms of a protocol."""
    return list(dict.fromkeys(name for words in protocol.sweeps for _, name in arms_of(words)))


def swept(protocol: Protocol, algorithms: Sequence[str] | None = None) -> list[tuple[str, ...]]:
    """The sweeps of a protocol, of some algorithms alone where any are named."""
    kept = []
    for words in protocol.sweeps:
        chosen = [file for file, name in arms_of(words) if name in (algorithms or names_of(protocol))]
        if chosen:
            kept.append(tuple(f"algo={','.join(chosen)}" if w.startswith("algo=") else w for w in words))
    return kept


def at_equal_cost(trials: Sequence[Trial], baseline: str) -> list[dict[str, object]]:
    """Final scores of each algorithm when it has cost what ``baseline`` did.

    Cost is env steps, labels (of those that ask any, where the baseline does), and the processor time of the
    run's process, where every run recorded it: time on the wall depends on what else the machine did. The
    cost of the baseline on a task is the median over its seeds. A score is the mean of the last
    ``FINAL_EVALUATIONS`` evaluations within it, 0 being random actions and 1 the expert; runs that failed
    score 0. ``score`` is the mean over runs, then over tasks, with Student's interval (empty where there are
    too few seeds), and ``share`` is the score divided by the baseline's.
    """
    scale, rows = scale_of_references(), []
    tasks = sorted({trial.task for trial in trials})
    for axis in ("env_steps", "labels", "cpu_s"):
        spent = [t.along(axis)[-1] for t in trials if len(t.returns) and (t.finished or axis == "cpu_s")]
        asked = [t.along(axis)[-1] for t in trials if t.finished and t.algorithm == baseline]
        if not np.isfinite(spent).all() or not max(asked, default=0.0) > 0:
            print(f"at equal {AXES[axis]}: not recorded in every run, or none used by {baseline}")
            continue
        scores: dict[str, list[DoubleArray]] = {}
        for task in tasks:
            on = [trial for trial in trials if trial.task == task]
            limit = np.median([t.along(axis)[-1] for t in on if t.algorithm == baseline])
            low, high = scale[task]
            for algorithm in sorted({trial.algorithm for trial in trials}):
                mine = [
                    (within(trial, axis, float(limit)) - low) / (high - low) if trial.finished else 0.0
                    for trial in on
                    if trial.algorithm == algorithm
                ]
                scores.setdefault(algorithm, []).append(np.array(mine))
        theirs = mean(scores[baseline]).value
        for algorithm, strata in scores.items():
            found = mean(strata)
            rows.append(
                {
                    "at equal": axis,
                    "algorithm": algorithm,
                    "score": round(found.value, 4),
                    "low": round(found.low, 4),
                    "high": round(found.high, 4),
                    "share": round(found.value / theirs, 2),
                    "runs": sum(len(scores) for scores in strata),
                }
            )
    return rows


def within(trial: Trial, axis: str, limit: float) -> float:
    """Mean return of the last evaluations after training began that had cost ``limit`` at most.

    A run ends with the iteration that reaches its env steps: a hundredth more is not held against it.
    """
    known = (trial.along(axis) <= 1.01 * limit) & (trial.iteration > 0)
    if not known.any():
        return float(trial.returns[0])
    return float(trial.returns[known][-FINAL_EVALUATIONS:].mean())


def sailctl(*words: str, check: bool = True) -> None:
    """Say and run a command line, as a user would."""
    print("sailctl", *words, flush=True)
    subprocess.run([sys.executable, "-m", "sailctl", *words], check=check)


if __name__ == "__main__":
    main()
