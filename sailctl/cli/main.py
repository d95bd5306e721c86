"""The ``sailctl`` command and its verbs. Heavy modules are imported inside the verb that needs them."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from sailctl import __version__
from sailctl.cli.comparing import compare, plot, report
from sailctl.cli.parser import Parser
from sailctl.cli.usage import COLLECT_HELP, HELP, REFERENCE_HELP, REGRESS_HELP, STATUS_HELP, TRAIN_HELP
from sailctl.core.terminal import fit_encoding, shortened


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (``sys.argv`` by default) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    fit_encoding()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if arguments[0] == "--version":
        print(f"sailctl {__version__}")
        return 0

    # Set before numpy is imported: one thread per linear algebra call, because runs share the cores.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "y", "on"):  # an older variable
        os.environ.setdefault("WANDB_MODE", "disabled")
    if "MUJOCO_GL" in os.environ:  # importing MuJoCo fails if that OpenGL is missing
        # The processes that render videos read the other variable.
        os.environ.setdefault("SAILCTL_MUJOCO_GL", os.environ["MUJOCO_GL"])
        os.environ["MUJOCO_GL"] = "disable"
    os.environ["MPLBACKEND"] = "agg"  # no window is opened, and another backend may be missing
    from sailctl.core.files import NO_PLACE, OUT_OF_REACH
    from sailctl.core.types import RunError, UserError

    try:
        verb, *rest = arguments
        if verb not in VERBS:
            raise UserError(f"unknown verb '{verb}'; the verbs are {', '.join(VERBS)} (see sailctl --help)")
        code = VERBS[verb](rest)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in (*OUT_OF_REACH, *NO_PLACE):
            raise
        print(f"sailctl: cannot use {shortened(str(error.filename))}: {error.strerror}", file=sys.stderr)
        return 2 if error.errno in NO_PLACE else 1
    except (UserError, RunError) as error:
        print(f"sailctl: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt as error:
        print(f"sailctl: interrupted{f', {error}' if str(error) else ''}", file=sys.stderr)
        return 128 + int(getattr(error, "signal", signal.SIGINT))


def train(arguments: Sequence[str]) -> int:
    """``sailctl train``: check every run of the command line, then launch them with Hydra."""
    from sailctl.core.types import UserError
    from sailctl.sweeps.compose import compose_jobs, describe

    parser = Parser("train", _train_help())
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--fail-fast", action="store_true")
    parser.add_argument("--cfg", choices=["job"])
    parser.add_argument("--config-dir", type=Path)
    parser.add_argument("--batch", type=int, default=5)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--baseline")
    parser.add_argument("--by", action="append")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args(arguments)

    until = [word for word in options.overrides if word.startswith("until=")]
    if until:
        from sailctl.cli.until import WORD, train_until_decided

        if until != [WORD]:
            raise UserError(f"until takes one value, decided; got '{' '.join(until)}'")
        return train_until_decided([word for word in options.overrides if word != WORD], options)

    given = {word.partition("=")[0] for word in arguments}
    unused = [name for name in ("--batch", "--batches", "--baseline", "--by") if name in given]
    if unused:
        raise UserError(f"{unused[0]} belongs to until=decided")
    words = [*options.overrides, *(["logger.fresh=true"] if options.fresh else [])]
    plan = compose_jobs(words, multirun=options.multirun, overlay=options.config_dir)
    if options.fail_fast and not plan.multirun:
        raise UserError("--fail-fast applies to the jobs of a sweep: add -m")
    if options.cfg:
        if plan.multirun:
            raise UserError("--cfg job shows one configuration; leave out -m")
        composed = plan.jobs[0].composed
        print(describe(composed, composed.hydra.runtime.choices), end="")
        return 0

    from sailctl.sweeps.launch import launch, launch_sweep

    return launch_sweep(plan, options.fail_fast) if plan.multirun else launch(plan.arguments)


def _train_help() -> str:
    from sailctl.config import GROUPS, conf_dir

    lines = []
    for group in (*GROUPS, "experiment"):
        options = sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))
        lines.append(f"    {group:<12} {', '.join(options)}")
    return TRAIN_HELP.format(groups="\n".join(lines))


def status(arguments: Sequence[str]) -> int:
    """``sailctl status``: print the states of the jobs of a sweep."""
    from sailctl.core.types import UserError

    parser = Parser("status", STATUS_HELP)
    parser.add_argument("sweep", type=Path, nargs="?", default=Path("runs"))
    parser.add_argument("--watch", type=float, metavar="SECONDS", nargs="?", const=5.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.watch is not None and not 0.1 <= options.watch <= 86_400:
        raise UserError(f"--watch must be from 0.1 to 86400 seconds, got {options.watch:g}")
    if options.watch is not None and options.json:
        raise UserError("--watch and --json cannot be combined")
    return _show_jobs(options)


def _show_jobs(options: argparse.Namespace) -> int:
    from sailctl.sweeps import listing as sweeps

    if options.watch is not None:
        sweeps.watch(options.sweep, options.watch)
    jobs = sweeps.jobs_in(options.sweep, lambda line: print(f"sailctl: warning: {line}", file=sys.stderr))
    if options.json:
        print(sweeps.as_json(jobs))
    elif options.watch is None:
        print(f"{sweeps.summary(jobs)}\n{sweeps.table(jobs)}")
    return 1 if any(job.state in ("failed", "lost") for job in jobs) else 0


def evaluate(arguments: Sequence[str]) -> int:
    """``sailctl eval``: measure the true return of a trained policy."""
    from sailctl.core.files import find_policy
    from sailctl.core.types import UserError
    from sailctl.runs.results import is_run

    parser = Parser(
        "eval",
        description="Run the final policy of a run with deterministic actions and print its true return.",
    )
    parser.add_argument(
        "run",
        type=Path,
        metavar="RUN",
        help="run directory, as `sailctl train` printed it, or a policy folder",
    )
    parser.add_argument("--episodes", type=int, default=10, help="number of episodes (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=12345, help="seed of the initial states (default: %(default)s)"
    )
    parser.add_argument(
        "--video", type=Path, metavar="FILE.mp4", help="also write a video of the first episode"
    )
    options = parser.parse_args(arguments)
    if not is_run(options.run) and find_policy(options.run) is None:
        raise UserError(
            f"'{options.run}' is not a run directory (the one that sailctl train printed) or a policy folder"
        )
    if options.episodes < 1:
        raise UserError(f"--episodes must be at least 1, got {options.episodes}")
    if options.seed < 0:
        raise UserError(f"--seed must be 0 or more, got {options.seed}")
    if options.video is not None and options.video.suffix != ".mp4":
        raise UserError(f"--video must name an .mp4 file, got '{options.video}'")

    from sailctl.training.evaluate import evaluate_run

    evaluate_run(options.run, options.episodes, options.seed, options.video)
    return 0


def regress(arguments: Sequence[str]) -> int:
    """``sailctl regress``: run or update the gate for continuous integration."""
    parser = Parser("regress", REGRESS_HELP)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--update", metavar="REASON")
    parser.add_argument("--new", metavar="NAME")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--gate-seeds", type=int)
    parser.add_argument("--alpha", type=float)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--config-dir", type=Path)
    return _guard(parser.parse_intermixed_args(arguments))


def _guard(options: argparse.Namespace) -> int:
    from sailctl.core.files import place
    from sailctl.core.types import UserError
    from sailctl.gate import regress as gate
    from sailctl.gate.baselines import Protocol

    overrides = [word for word in options.words if "=" in word and not place(word).exists()]
    places = [place(word) for word in options.words if word not in overrides] or [Path("results/baselines")]
    new_options = {"--seeds": options.seeds, "--gate-seeds": options.gate_seeds, "--alpha": options.alpha}
    if options.jobs is not None and options.jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {options.jobs}")
    if options.new is None:
        if misplaced := [name for name, value in new_options.items() if value is not None] or overrides:
            raise UserError(
                f"{misplaced[0]} belongs to a new protocol: add --new NAME (see sailctl regress --help)"
            )
        if options.update is None:
            return gate.check(places, options.out, options.jobs, options.config_dir)
        return gate.update(places, options.update, options.out, options.jobs, options.config_dir)
    if options.update is None:
        raise UserError("--new needs --update REASON, which is recorded with the baseline")
    if len(places) > 1:
        raise UserError(f"--new makes one baseline in one folder, got {len(places)} folders")
    seeds, gate_seeds = options.seeds or gate.BASELINE_SEEDS, options.gate_seeds or gate.GATE_SEEDS
    alpha = gate.ALPHA if options.alpha is None else options.alpha
    for name, value, valid in (
        ("--seeds", seeds, 1 <= seeds <= gate.FIRST_GATE_SEED),
        ("--gate-seeds", gate_seeds, gate_seeds >= 1),
        ("--alpha", alpha, 0 < alpha < 1),
    ):
        if not valid:
            limits = {"--seeds": f"from 1 to {gate.FIRST_GATE_SEED}", "--alpha": "between 0 and 1"}
            raise UserError(f"{name} must be {limits.get(name, 'at least 1')}, got {value}")
    first = gate.FIRST_GATE_SEED
    protocol = Protocol(options.new, overrides, list(range(first, first + gate_seeds)), alpha)
    return gate.create(
        places[0], protocol, range(seeds), options.update, options.out, options.jobs, options.config_dir
    )


def collect(arguments: Sequence[str]) -> int:
    """``sailctl collect``: collect a data set of preferences about one policy."""
    from sailctl.config import validate_rollout
    from sailctl.core.types import UserError
    from sailctl.sweeps.compose import compose_jobs

    parser = Parser("collect", COLLECT_HELP)
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config-dir", type=Path)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args(arguments)

    # Composed as a sweep, so that the error for several values does not suggest -m, which is refused here.
    form = [] if any(word.startswith("algo=") for word in options.overrides) else ["algo=sail_segments"]
    plan = compose_jobs([*form, *options.overrides], multirun=True, overlay=options.config_dir)
    if options.multirun or len(plan.jobs) > 1:
        raise UserError("sailctl collect makes one file: leave out -m, and give each key one value")

    config = plan.jobs[0].config
    validate_rollout(config)

    from sailctl.training.collect import collect as collect_pairs

    collect_pairs(config, options.pairs, options.out, ["sailctl", "collect", *arguments])
    return 0


def tasks(arguments: Sequence[str]) -> int:
    """``sailctl tasks``: list the tasks, or describe one."""
    parser = Parser("tasks", description="List the tasks, or describe one: observations, actions and reward.")
    parser.add_argument("task", nargs="?", metavar="TASK", help="id of the task to show")
    parser.add_argument(
        "--measure",
        action="store_true",
        help="measure env steps/s on this machine, relative to mj_step alone (a minute)",
    )
    options = parser.parse_args(arguments)

    from sailctl.cli.listing import print_task, print_tasks
    from sailctl.core.types import UserError

    if options.task is None:
        print_tasks(options.measure)
    elif options.measure:
        raise UserError("--measure measures all tasks: leave out the task")
    else:
        print_task(options.task)
    return 0


def doctor(arguments: Sequence[str]) -> int:
    """``sailctl doctor``: check what works on this machine."""
    Parser("doctor", description="Check what works on this machine, and say what to install.").parse_args(
        arguments
    )

    from sailctl.cli.doctor import diagnose

    return diagnose()


def reference(arguments: Sequence[str]) -> int:
    """``sailctl reference``: list the reference policies, train those of a task, or import one."""
    from sailctl.core.types import UserError

    parser = Parser("reference", REFERENCE_HELP)
    parser.add_argument("--from", type=Path, dest="saved")
    parser.add_argument("--obs-stats", type=Path)
    parser.add_argument("--out", type=Path, default=Path("references"))
    parser.add_argument("--config-dir", type=Path)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args(arguments)
    if options.obs_stats is not None and options.saved is None:
        raise UserError("--obs-stats belongs to the model of --from FILE.zip")
    if not options.overrides and options.saved is None:
        from sailctl.policies.references import table

        print(table())
        return 0

    from sailctl.sweeps.compose import compose_jobs

    plan = compose_jobs(["algo=ppo", *options.overrides], overlay=options.config_dir)
    if options.saved is not None:
        from sailctl.training.import_policy import keep_imported

        print(keep_imported(options.saved, options.obs_stats, plan.jobs[0].config, options.out))
        return 0

    from sailctl.training.make_references import make_reference

    print(make_reference(plan.jobs[0].config, options.overrides, options.out))
    return 0


VERBS = {
    "train": train,
    "status": status,
    "eval": evaluate,
    "plot": plot,
    "compare": compare,
    "report": report,
    "regress": regress,
    "collect": collect,
    "reference": reference,
    "tasks": tasks,
    "doctor": doctor,
}
