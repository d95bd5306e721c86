"""The verbs that compare runs: ``plot``, ``compare`` and ``report``."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sailctl.cli.parser import Parser
from sailctl.cli.usage import COMPARE

if TYPE_CHECKING:
    from sailctl.analysis.compare import Comparison


def plot(arguments: Sequence[str]) -> int:
    """``sailctl plot``: draw the learning curves of runs in one figure."""
    parser = Parser("plot", description="Draw the learning curves of runs into one figure.")
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUNS",
        help="run directories, folders of them, or saved evidence (.csv)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("learning_curves.png"),
        metavar="FILE",
        help="figure to write (default: %(default)s)",
    )
    options = parser.parse_args(arguments)

    from sailctl.analysis.figures import plot_runs

    plot_runs(options.runs, options.out)
    return 0


def compare(arguments: Sequence[str]) -> int:
    """``sailctl compare``: print the statistics of runs."""
    parser = _comparison_parser("compare", f"Compare runs, and print the statistics.\n\n{COMPARE}")
    parser.add_argument(
        "--save",
        type=Path,
        metavar="FILE.csv",
        help="save the curves of the runs, with their provenance in a .json file",
    )
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="write all figures to FOLDER")
    parser.add_argument(
        "--sequential",
        action="store_true",
        help="decide after each batch of seeds whether to stop, with one error rate in all (AdaStop)",
    )
    parser.add_argument(
        "--batch", type=int, default=5, help="with --sequential: seeds per batch (default: %(default)s)"
    )
    parser.add_argument(
        "--batches",
        type=int,
        default=6,
        help="with --sequential: maximum number of batches (default: %(default)s)",
    )
    return _print_comparison(parser.parse_args(arguments))


def _print_comparison(options: argparse.Namespace) -> int:
    from sailctl.analysis.report import text
    from sailctl.core.types import UserError

    if options.save is not None and options.save.suffix != ".csv":
        raise UserError(f"--save must name a .csv file, got '{options.save}'")
    if options.save is not None and options.save.exists():
        raise UserError(f"--save would overwrite {options.save}: choose another name, or remove it first")
    comparison = _compared(options)

    if options.sequential:
        from sailctl.analysis.sequential import Plan, progress

        _, sentences = progress(comparison, Plan(options.batch, options.batches))
        print("\n".join([*sentences, *comparison.caveats]))
    else:
        print(text(comparison))
    if options.save is not None:
        from sailctl.analysis.trials import save_trials

        save_trials(comparison.evidence.trials, options.save)
        print(f"saved: {options.save} (and {options.save.with_suffix('.json').name})")
    if options.figures is not None:
        from sailctl.analysis.figures import all_figures

        for path in all_figures(comparison, options.figures).values():
            print(f"figure: {path}")
    return 0


def report(arguments: Sequence[str]) -> int:
    """``sailctl report``: write the comparison as one page, with tables as Markdown and LaTeX, and to W&B."""
    parser = _comparison_parser("report", f"Write the comparison of runs as one HTML page.\n\n{COMPARE}")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE.html",
        help="page to write; its tables are written as .md and .tex files (default: %(default)s)",
    )
    parser.add_argument("--title", help="title of the page (default: what is compared)")
    parser.add_argument(
        "--video", type=Path, action="append", default=[], metavar="FILE.mp4", help="link this video too"
    )
    parser.add_argument(
        "--wandb",
        choices=["offline", "online", "disabled"],
        default=os.environ.get("WANDB_MODE", "offline"),
        help="log figures and tables as a separate W&B run (default: %(default)s)",
    )
    parser.add_argument(
        "--project",
        default=os.environ.get("WANDB_PROJECT", "sailctl"),
        help="W&B project (default: %(default)s)",
    )
    return _write_page(parser.parse_args(arguments), shlex.join(["sailctl", "report", *arguments]))


def _write_page(options: argparse.Namespace, command: str) -> int:
    from sailctl.analysis.report import write_report
    from sailctl.config import PROJECT, is_project
    from sailctl.core.types import UserError

    if options.wandb != "disabled" and not is_project(options.project):
        raise UserError(f"--project must be {PROJECT}, got '{options.project}'")
    comparison = _compared(options)

    figures = write_report(comparison, options.out, options.title, options.video, command)
    print(f"report: {options.out} (tables: {options.out.stem}.md, {options.out.stem}.tex)")
    if options.wandb != "disabled":
        from sailctl.analysis.summary import log_summary

        log_summary(comparison, figures, options.out.parent, options.wandb, options.project, options.out.stem)
    return 0


def _comparison_parser(verb: str, description: str) -> Parser:
    parser = Parser(verb, description=description)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUNS", help="see above")
    parser.add_argument(
        "--by",
        action="append",
        metavar="SETTING",
        help="compared setting, such as algo.gamma; may be repeated, and may contain * (default: algo.*)",
    )
    parser.add_argument(
        "--baseline",
        metavar="ARM",
        help="arm that the others are compared with (default: sail, else sail_segments, ...)",
    )
    parser.add_argument(
        "--scale",
        metavar="SCALE",
        help="returns of scores 0 and 1: references (random actions, the expert), runs (before training, the "
        "best final return of any run), or a FILE.yaml of lines such as 'hopper-v5: [20, 3000]' "
        "(default: references, if all tasks have them)",
    )
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="score of the time to threshold (default: %(default)s)"
    )
    parser.add_argument(
        "--resamples", type=int, default=10_000, help="random permutations of a test (default: %(default)s)"
    )
    parser.add_argument(
        "--effect",
        type=float,
        default=0.1,
        help="difference in score, fixed in advance, for the power and the number of seeds needed "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--force", action="store_true", help="compare although other settings differ; every output says so"
    )
    return parser


def _compared(options: argparse.Namespace) -> Comparison:
    import math

    from sailctl.analysis.arms import gather
    from sailctl.analysis.compare import compare as compare_arms
    from sailctl.analysis.contrasts import Options
    from sailctl.analysis.scores import choose_scale, read_scale
    from sailctl.analysis.trials import load_trials
    from sailctl.core.files import place
    from sailctl.core.types import UserError

    if options.resamples < 100:
        raise UserError(f"--resamples must be at least 100, got {options.resamples}")
    if not math.isfinite(options.threshold):
        raise UserError(f"--threshold must be a number, got {options.threshold}")
    if not 0 < options.effect < math.inf:
        raise UserError(f"--effect must be above 0, got {options.effect:g}")
    file = read_scale(place(options.scale)) if options.scale not in (None, "references", "runs") else None
    trials = load_trials(options.runs)
    tasks = sorted({trial.task for trial in trials})
    scale, source = choose_scale(options.scale, tasks) if file is None else (file, "file")
    evidence = gather(trials, options.by or ["algo.*"], options.force)
    settings = Options(
        options.baseline, scale, source, options.threshold, options.resamples, effect=options.effect
    )
    return compare_arms(evidence, settings)
