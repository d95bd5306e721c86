"""The protocols of ``results/protocols``: for each, one command trains all arms, compares and reports them.

Arms of a protocol have the same budget of env steps and the same seeds. Tasks, seeds and budget can be made
smaller than asked here; what was run is in the record beside the results. A run that fails stays in the
denominator. The defaults (eight tasks, ten seeds, a million env steps) are days on two cores.
"""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from dataclasses import dataclass
from pathlib import Path

from benchmarks.record import RESULTS
from sailctl.references import read_references

FROM_MEDIUM = ("algo.reference=medium",)


@dataclass(frozen=True)
class Protocol:
    """What is trained, and how it is compared."""

    what: str
    sweeps: tuple[tuple[str, ...], ...]
    """Words of ``sailctl train -m`` beside tasks, seeds and budget; each sweep brings some of the arms."""
    compare: tuple[str, ...]
    """Words of ``sailctl compare`` and ``sailctl report``."""


PROTOCOLS = {
    "alignment": Protocol(
        "alignment from the medium reference policy: SAIL, SAIL-RevKL, online DPO and robust SAIL",
        (("algo=sail,sail_revkl,dpo_online,sail_robust", *FROM_MEDIUM),),
        ("--baseline", "sail"),
    ),
    "alignment_expert": Protocol(
        "alignment from the expert: what is kept of it",
        (("algo=sail,sail_revkl,dpo_online,sail_robust", "algo.reference=expert"),),
        ("--baseline", "sail"),
    ),
    "scratch": Protocol(
        "from scratch: SAIL and SAIL-RevKL with labels that look ahead, SAIL-RevKL with the teacher's own, "
        "and PPO with the true reward",
        (
            ("experiment=foresight", "algo=sail,sail_revkl"),
            ("algo=sail_revkl", "algo.name=sail_revkl_direct"),
            ("algo=ppo",),
        ),
        # PPO asks for no labels and shares no setting with the others: --force overrules the proof of it.
        ("--by", "*", "--baseline", "ppo", "--force"),
    ),
    "teachers_mistaken": Protocol(
        "teachers whose answers are flipped, from the medium reference policy",
        (("algo=sail,sail_revkl,sail_robust", "oracle.mistake=0,0.1,0.2,0.3,0.4", *FROM_MEDIUM),),
        ("--by", "algo.*", "--by", "oracle.mistake", "--baseline", "sail oracle.mistake=0.0"),
    ),
    "map_gamma_beta": Protocol(
        "strength of the penalty against scale of the score, from the medium reference policy",
        (("algo=sail_revkl", "algo.gamma=0,0.1,1,10", "algo.beta=0.1,0.3,1,3", *FROM_MEDIUM),),
        ("--by", "algo.gamma", "--by", "algo.beta", "--baseline", "sail_revkl algo.beta=1.0 algo.gamma=0.0"),
    ),
}


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "protocol", choices=list(PROTOCOLS), help="; ".join(p.what for p in PROTOCOLS.values())
    )
    parser.add_argument("--tasks", nargs="+", default=list(read_references()), help="tasks with references")
    parser.add_argument("--seeds", type=int, default=10, help="seeds of each arm")
    parser.add_argument(
        "--env-steps", type=int, default=1_000_000, help="simulated control steps of each run"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/protocols"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS / "protocols", help="folder of the results")
    asked = parser.parse_args()

    protocol = PROTOCOLS[asked.protocol]
    runs, results = asked.runs / asked.protocol, asked.results / asked.protocol
    common = [
        f"env={','.join(asked.tasks)}", f"seed=range(0,{asked.seeds})", f"env_steps={asked.env_steps}",
        f"evaluation.every={max(1, asked.env_steps // 10)}", "evaluation.episodes=5",
        "logger.wandb=disabled", f"out={runs}",
    ]  # fmt: skip
    for sweep in protocol.sweeps:
        sailctl("train", "-m", *sweep, *common, check=False)  # a failed run is a result
    saved = results / "runs.csv"
    saved.unlink(missing_ok=True)
    sailctl("compare", str(runs), *protocol.compare, "--save", str(saved))
    report = ["--out", str(results / "report.md"), "--wandb", "disabled"]
    sailctl("report", str(saved), *protocol.compare, *report)


def sailctl(*words: str, check: bool = True) -> None:
    """Say and run a command line, as a user would."""
    print("sailctl", *words, flush=True)
    subprocess.run([sys.executable, "-m", "sailctl", *words], check=check)


if __name__ == "__main__":
    main()
