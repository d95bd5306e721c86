"""A comparison as one self-contained HTML page: no network, no script, embedded figures and style.

All text from runs (names, errors, paths, command lines) is escaped.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

import numpy as np

from sailctl import __version__
from sailctl.analysis.arms import plain
from sailctl.analysis.compare import Comparison
from sailctl.analysis.evidence import FINAL_EVALUATIONS, Arm, Trial, shared_settings
from sailctl.analysis.figures import all_figures
from sailctl.analysis.report.formats import latex, markdown
from sailctl.analysis.report.glossary import GLOSSARY
from sailctl.analysis.report.markup import cautioned, details, escaped, itemised, pictured, tabled
from sailctl.analysis.report.numbers import NOTHING, counts, number, places
from sailctl.analysis.report.tables import (
    Cell,
    Row,
    Table,
    contrasts_table,
    failure_of,
    failures_table,
    performance_table,
    power_table,
    reminder,
    scales_table,
    seeds_of,
    settings_table,
    stability_table,
)
from sailctl.core.files import write_atomically
from sailctl.core.types import UserError

_STYLE = Path(__file__).with_name("style.css")


def write_report(
    comparison: Comparison,
    path: Path,
    title: str | None = None,
    videos: Sequence[Path] = (),
    command: str | None = None,
) -> dict[str, Path]:
    """Write the page, its tables as .md and .tex files, and its figures to ``<stem>_figures/``.

    Args:
        comparison: the result to report.
        path: the .html file; its folder is created.
        title: title of the page; None uses the compared settings.
        videos: .mp4 files to link in addition to those in or next to the run directories.
        command: the command line, shown on the page.

    Returns:
        ``{name: .png file}`` of the figures, in the order of the page.

    Raises:
        UserError: when ``path`` is not an .html file or cannot be written, or a video does not exist.
    """
    if path.suffix != ".html":
        raise UserError(f"the report must be an .html file, got {path}")
    for video in videos:
        if not video.is_file():
            raise UserError(f"no such video: {video}")
    figures = all_figures(comparison, path.with_name(f"{path.stem}_figures"))
    linked = [*videos, *find_videos(comparison.evidence.trials)]
    addresses = list(dict.fromkeys(Path(os.path.relpath(v, path.parent)).as_posix() for v in linked))
    content = page(comparison, figures, title or _title(comparison), addresses, command)
    try:
        write_atomically(path, content)
        write_atomically(path.with_suffix(".md"), markdown(comparison))
        write_atomically(path.with_suffix(".tex"), latex(comparison))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return figures


def find_videos(trials: Sequence[Trial]) -> list[Path]:
    """The .mp4 files in run directories and next to them."""
    places = [Path(trial.place) for trial in trials]
    folders = dict.fromkeys(folder for place in places if place.is_dir() for folder in (place, place.parent))
    return [video for folder in folders for video in sorted(folder.glob("*.mp4"))]


def page(
    comparison: Comparison,
    figures: Mapping[str, Path],
    title: str,
    videos: Sequence[str],
    command: str | None,
) -> str:
    """The page; ``videos`` are addresses relative to it."""
    sections = [section for section in _sections(comparison, figures, videos, command) if section[2]]
    contents = "".join(f'<li><a href="#{key}">{escaped(heading)}</a></li>' for key, heading, _ in sections)
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-heading"><h2 id="{key}-heading">{escaped(heading)}</h2>'
        f"{inside}</section>\n"
        for key, heading, inside in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="generator" content="sailctl {__version__}">\n'
        f"<title>{escaped(title)}</title>\n<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        f'<header><h1>{escaped(title)}</h1><p class="what">{escaped(_subtitle(comparison))}</p></header>\n'
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav>\n<main>\n{_caveats(comparison)}{body}</main>\n'
        f"</body>\n</html>\n"
    )


# This policy prevents all requests of the browser.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def _sections(
    comparison: Comparison, figures: Mapping[str, Path], videos: Sequence[str], command: str | None
) -> list[tuple[str, str, str]]:
    """(id, heading, HTML) of each section; empty sections are left out of the page."""
    pictures = {name: pictured(name, path) for name, path in figures.items()}
    several = len(comparison.evidence.arms) > 1

    def table(content: Table, titled: bool = True) -> str:
        return tabled(content, reminder(comparison), titled) if content.rows else ""

    stability = table(contrasts_table(comparison, stability=True)) if several else ""
    return [
        ("verdict", "Verdict", _verdict(comparison)),
        ("intervals", "Which arm is better" if several else "Final scores", pictures.get("intervals", "")),
        (
            "performance",
            "Performance",
            table(performance_table(comparison), titled=False) + tabled(scales_table(comparison)),
        ),
        ("contrasts", "Differences from the baseline", table(contrasts_table(comparison))),
        ("curves", "Learning curves", pictures.get("learning_curves", "")),
        (
            "stability",
            "Stability",
            table(stability_table(comparison), titled=False)
            + pictures.get("stability", "")
            + details(f"Stability compared with {comparison.baseline}", stability),
        ),
        ("profiles", "Performance profiles", pictures.get("profiles", "")),
        ("before-after", "Before and after training", pictures.get("before_after", "")),
        ("heat-map", "Swept settings", pictures.get("heat_map", "")),
        ("power", "Seeds needed", table(power_table(comparison))),
        ("settings", "Settings", _settings(comparison, settings_table(comparison))),
        ("runs", "Runs", _runs(comparison, failures_table(comparison))),
        (
            "videos",
            "Videos",
            itemised(f'<a href="{quote(url)}">{escaped(url)}</a>' for url in videos),
        ),
        ("provenance", "Provenance", _provenance(comparison.evidence.trials)),
        ("definitions", "Definitions", _definitions()),
        ("made", "How this page was made", _page_origin(comparison, command)),
    ]


def _title(comparison: Comparison) -> str:
    names = [arm.name for arm in comparison.evidence.arms]
    others = [name for name in names if name != comparison.baseline]
    arms = f"{', '.join(others)} versus {comparison.baseline}" if others else names[0]
    if len(others) > 4:
        arms = f"{len(others)} arms versus {comparison.baseline}"
    return f"{arms} on {_listed(comparison.evidence.tasks)}"


def _subtitle(comparison: Comparison) -> str:
    evidence = comparison.evidence
    trials = [trial for trial in evidence.trials if trial.task in evidence.tasks]
    finished = [trial for trial in trials if trial.finished]
    words = (
        f"{_count(len(evidence.arms), 'arm')} ({_listed([arm.name for arm in evidence.arms])}) on "
        f"{_count(len(evidence.tasks), 'task')} ({_listed(evidence.tasks)}), "
        f"{seeds_of(comparison)} per arm and task: {_count(len(trials), 'run')}, {len(finished)} finished"
    )
    if finished:
        steps, labels = (
            counts(trial.along(axis)[-1] for trial in finished) for axis in ("env_steps", "labels")
        )
        words += f"; {steps} env steps and {labels} labels per finished run"
    return f"{words}."


def _count(size: int, name: str) -> str:
    return f"{size} {name}{'' if size == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"


def _caveats(comparison: Comparison) -> str:
    caveats = comparison.evidence.caveats
    if not caveats:
        return ""
    return (
        '<aside class="caveats" id="caveats" aria-label="Caveats"><p><strong>Not a fair comparison</strong>, '
        "for these reasons:</p>"
        f"{itemised(map(escaped, caveats))}</aside>\n"
    )


def _verdict(comparison: Comparison) -> str:
    verdicts = [
        f'<li class="{c.verdict}"><span class="badge">{c.verdict}</span> {escaped(c.sentence)}</li>'
        for c in comparison.headlines
    ]
    if not verdicts:
        verdicts = [f"<li>{escaped(comparison.verdict[0])}</li>"]
    html = f'<ul class="verdict">{"".join(verdicts)}</ul>{cautioned(reminder(comparison))}'
    if failed := sum(bool(failure_of(comparison, trial)) for trial in comparison.evidence.trials):
        link = '<a href="#runs">Runs</a>'
        html += f"<p>{_count(failed, 'run')} failed, did not finish or collapsed: see {link}.</p>"
    if notes := comparison.evidence.notes:
        html += f'<div class="notes"><h3>Notes</h3>{itemised(map(escaped, notes))}</div>'
    return html


def _settings(comparison: Comparison, differing: Table) -> str:
    evidence = comparison.evidence
    shared = shared_settings(evidence.trials)
    rows = tuple(Row("", (Cell(key), Cell(plain(value)))) for key, value in sorted(shared.items()))
    about = (("", "Settings that have the same value in all runs."),)
    common = tabled(Table("Common settings", about, "", ("setting", "value"), "ll", rows))
    parts = [details(f"Common to all runs ({_count(len(rows), 'setting')})", common)]
    parts += [details(f"All settings of {arm.name}", _configuration(arm)) for arm in evidence.arms]
    return (tabled(differing) if differing.rows else "") + "".join(parts)


def _configuration(arm: Arm) -> str:
    tasks = {trial.task: trial.settings for trial in arm.trials}
    keys = sorted(set().union(*tasks.values()))
    rows = tuple(
        Row(
            "",
            (
                Cell(key),
                *(Cell(plain(values[key]) if key in values else NOTHING) for values in tasks.values()),
            ),
        )
        for key in keys
    )
    about = (("", "Without the seed, and without settings that do not affect the results."),)
    head = ("setting", *tasks)
    return tabled(Table(f"Settings of {arm.name}", about, "", head, "l" * len(head), rows))


def _runs(comparison: Comparison, failures: Table) -> str:
    evidence = comparison.evidence
    rows = []
    for arm in evidence.arms:
        for task, group in groupby(arm.trials, key=lambda trial: trial.task):
            trials = list(group)
            decimals = places(trial.final for trial in trials)
            for trial in trials:
                ends = [
                    number(trial.along(axis)[-1], 0) if len(trial.returns) else NOTHING
                    for axis in ("env_steps", "labels", "wall_s")
                ]
                cells = (
                    str(trial.seed),
                    failure_of(comparison, trial) or "finished",
                    number(trial.final, decimals),
                    *ends,
                    trial.relative_place,
                )
                rows.append(Row(f"{arm.name} on {task}", tuple(map(Cell, cells))))
    head = ("seed", "state", "final return", "env steps", "labels", "wall-clock (s)", "place")
    about = (
        ("", f"Final return: mean at the last {FINAL_EVALUATIONS} evaluations, also for unfinished runs."),
    )
    every = tabled(Table("All runs", about, "arm and task", head, "rlrrrrl", tuple(rows)))
    return (
        tabled(failures) if failures.rows else "<p>Every run finished, and none collapsed.</p>"
    ) + details(f"All runs ({len(rows)})", every)


def _provenance(trials: Sequence[Trial]) -> str:
    separate = ("id", "started", "command")
    keys = dict.fromkeys(key for trial in trials for key in trial.origin if key not in separate)
    rows = []
    for key in keys:
        counted = Counter(plain(trial.origin.get(key)) for trial in trials)
        values = [v if len(counted) == 1 else f"{v} ({_count(n, 'run')})" for v, n in counted.items()]
        rows.append(
            Row("", (Cell({"dirty": "code differs from the commit"}.get(key, key)), Cell("; ".join(values))))
        )
    dates = sorted(str(trial.origin["started"]) for trial in trials if trial.origin.get("started"))
    if dates:
        rows.append(Row("", (Cell("runs started"), Cell(" to ".join(dict.fromkeys((dates[0], dates[-1])))))))
    spent = float(sum(np.nanmax(trial.wall_s) for trial in trials if np.isfinite(trial.wall_s).any()))
    rows.append(Row("", (Cell("time of all runs"), Cell(f"{number(spent / 3600, 2)} hours"))))
    commands = Counter(str(trial.origin["command"]) for trial in trials if trial.origin.get("command"))
    listed = itemised(f"<code>{escaped(line)}</code> ({_count(n, 'run')})" for line, n in commands.items())
    about = (("", "Code, packages and machines, as recorded by the runs."),)
    facts = Table("Provenance", about, "", ("property", "value"), "ll", tuple(rows))
    return tabled(facts, titled=False) + details(f"Command lines ({len(commands)})", listed)


def _page_origin(comparison: Comparison, command: str | None) -> str:
    options = comparison.options
    facts = {
        "sailctl": __version__,
        "command": command,
        "baseline": comparison.baseline,
        "random permutations of a test": f"{options.draws:,}",
        "seed of the permutations": str(options.seed),
        "threshold": f"{options.threshold:g}",
        "effect of the power": f"{options.effect:g}",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    items = "".join(
        f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>\n" for name, value in facts.items() if value
    )
    return f"<dl>{items}</dl><p>The same runs and options reproduce these numbers.</p>"


def _definitions() -> str:
    items = "".join(
        f"<dt>{escaped(term)}</dt><dd>{escaped(words)}</dd>\n" for term, words in GLOSSARY.items()
    )
    more = "<p>Formulas, sources and measured coverage are in <code>docs/statistics.md</code>.</p>"
    return details(f"Terms ({len(GLOSSARY)})", f"<dl>{items}</dl>{more}")
