"""A comparison as one HTML page that needs nothing else: no network, no script, pictures and style inside.

All that comes from runs (names, errors, places, command lines) is escaped on its way into the page.
"""

from __future__ import annotations

import base64
import html
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

import numpy as np

from sailctl import __version__
from sailctl.compare import Comparison
from sailctl.evidence import FINAL_EVALUATIONS, Arm, Trial, shared_settings
from sailctl.figures import all_figures
from sailctl.files import write_atomically
from sailctl.report.formats import latex, markdown
from sailctl.report.glossary import GLOSSARY
from sailctl.report.numbers import NOTHING, counts, number, places
from sailctl.report.tables import (
    Cell,
    Row,
    Table,
    contrasts_table,
    how_lost,
    lost_table,
    performance_table,
    place_of,
    plain,
    power_table,
    reminder,
    scales_table,
    seeds_of,
    settings_table,
    stability_table,
)
from sailctl.statistics import LEVEL
from sailctl.types import UserError

LARGE = 300_000
"""Bytes from which on a picture is embedded as pixels, if that is shorter."""
PIXELS_PER_REM = 24
"""Of a .png: so wide is a picture at most on the page."""

_STYLE = Path(__file__).with_name("style.css")

# Name of a picture: (what it shows, how it is read).
_PICTURES = {
    "intervals": (
        "Final score of each arm, its difference from the baseline and its probability of improvement",
        "Points are estimates, bars {level} intervals. A filled marker is a difference that is decided, a "
        "hollow one is not.",
    ),
    "learning_curves": (
        "Learning curves: true return along env steps, labels used and wall-clock time, for each task",
        "Bold: mean over the finished seeds with its {level} interval at each point. Faint: single seeds. "
        "Dotted, with a cross at its end: a run that did not finish, which enters no mean.",
    ),
    "stability": (
        "Stability of each arm: dispersion and risk within and across runs, and the distance from the "
        "reference",
        "In units of score, of the finished runs. The table above has the numbers, and says which side is "
        "better.",
    ),
    "profiles": (
        "Performance profile: share of runs of each arm whose final score is above a threshold",
        "The higher a line, the more runs got that far; lines that cross mean that neither arm is better "
        "throughout. Bands are pointwise {level} intervals.",
    ),
    "before_after": (
        "Distribution of episode returns before training and at the end, for each arm and task",
        "Every episode of the first and of the last evaluation. A second hump at the end is a share of "
        "episodes (or seeds) that fail.",
    ),
    "heat_map": (
        "Mean final score over the two settings that were swept",
        "A dashed frame marks cells with runs that did not finish or collapsed.",
    ),
}


def write_report(
    comparison: Comparison,
    path: Path,
    title: str | None = None,
    videos: Sequence[Path] = (),
    command: str | None = None,
) -> dict[str, Path]:
    """Write the page, its tables beside it as .md and .tex, and its pictures into ``<stem>_figures/``.

    Args:
        comparison: what was found.
        path: the .html file; its folder is made.
        title: of the page; None says what is compared.
        videos: .mp4 files to link beside those in or next to the run directories.
        command: the command line that made it, to be told on the page.

    Returns:
        ``{name: .png file}`` of the pictures, in the order of the page.

    Raises:
        UserError: when ``path`` is no .html or cannot be written, or a video does not exist.
    """
    if path.suffix != ".html":
        raise UserError(f"the report must be an .html file, got {path}")
    for video in videos:
        if not video.is_file():
            raise UserError(f"no such video: {video}")
    figures = all_figures(comparison, path.with_name(f"{path.stem}_figures"))
    linked = [*videos, *find_videos(comparison.evidence.trials)]
    content = page(comparison, figures, title or _title(comparison), _links(linked, path), command)
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
    videos: Mapping[str, str],
    command: str | None,
) -> str:
    """The page; ``videos`` maps what is shown of a link to its address."""
    sections = [section for section in _sections(comparison, figures, videos, command) if section[2]]
    contents = "".join(f'<li><a href="#{key}">{_safe(heading)}</a></li>' for key, heading, _ in sections)
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-heading"><h2 id="{key}-heading">{_safe(heading)}</h2>'
        f"{inside}</section>\n"
        for key, heading, inside in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="generator" content="sailctl {__version__}">\n'
        f"<title>{_safe(title)}</title>\n<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        f'<header><h1>{_safe(title)}</h1><p class="what">{_safe(_what(comparison))}</p></header>\n'
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav>\n<main>\n{_caveats(comparison)}{body}</main>\n'
        f"</body>\n</html>\n"
    )


# A browser that reads this asks nobody for anything.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def _sections(
    comparison: Comparison, figures: Mapping[str, Path], videos: Mapping[str, str], command: str | None
) -> list[tuple[str, str, str]]:
    """(id, heading, HTML) of each section; what is empty is left out of the page."""
    pictures = {name: _picture(name, path) for name, path in figures.items()}
    several = len(comparison.evidence.arms) > 1

    def table(found: Table, titled: bool = True) -> str:
        return _table(found, reminder(comparison), titled) if found.rows else ""

    stability = table(contrasts_table(comparison, stability=True)) if several else ""
    return [
        ("verdict", "Verdict", _verdict(comparison)),
        ("intervals", "Which arm is better" if several else "Final scores", pictures.get("intervals", "")),
        (
            "performance",
            "Performance",
            table(performance_table(comparison), titled=False) + _table(scales_table(comparison)),
        ),
        ("contrasts", "Differences from the baseline", table(contrasts_table(comparison))),
        ("curves", "Learning curves", pictures.get("learning_curves", "")),
        (
            "stability",
            "Stability",
            table(stability_table(comparison), titled=False)
            + pictures.get("stability", "")
            + _details(f"Stability beside {comparison.baseline}", stability),
        ),
        ("profiles", "Performance profiles", pictures.get("profiles", "")),
        ("before-after", "Before and after training", pictures.get("before_after", "")),
        ("heat-map", "Swept settings", pictures.get("heat_map", "")),
        ("power", "Seeds needed", table(power_table(comparison))),
        ("settings", "Settings", _settings(comparison, settings_table(comparison))),
        ("runs", "Runs", _runs(comparison, lost_table(comparison))),
        (
            "videos",
            "Videos",
            _list(f'<a href="{quote(url)}">{_safe(name)}</a>' for name, url in videos.items()),
        ),
        ("provenance", "Provenance", _provenance(comparison.evidence.trials)),
        ("definitions", "Definitions", _definitions()),
        ("made", "How this page was made", _made(comparison, command)),
    ]


# Words


def _title(comparison: Comparison) -> str:
    names = [arm.name for arm in comparison.evidence.arms]
    others = [name for name in names if name != comparison.baseline]
    who = f"{', '.join(others)} beside {comparison.baseline}" if others else names[0]
    if len(others) > 4:
        who = f"{len(others)} arms beside {comparison.baseline}"
    return f"{who} on {_listed(comparison.evidence.tasks)}"


def _what(comparison: Comparison) -> str:
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
        words += f"; {steps} env steps and {labels} labels used by a finished run"
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
        '<aside class="caveats" id="caveats" aria-label="Caveats"><p><strong>Not a fair comparison.</strong> '
        "It was made all the same.</p>"
        f"{_list(map(_safe, caveats))}</aside>\n"
    )


def _verdict(comparison: Comparison) -> str:
    said = [
        f'<li class="{c.verdict}"><span class="badge">{c.verdict}</span> {_safe(c.sentence)}</li>'
        for c in comparison.headlines
    ]
    if not said:
        said = [f"<li>{_safe(comparison.verdict[0])}</li>"]
    unfair = _caution(reminder(comparison))
    notes = comparison.evidence.notes
    noted = f'<div class="notes"><h3>Notes</h3>{_list(map(_safe, notes))}</div>' if notes else ""
    lost = sum(bool(how_lost(comparison, trial)) for trial in comparison.evidence.trials)
    gone = f'<p>{_count(lost, "run")} failed, did not finish or collapsed: see <a href="#runs">Runs</a>.</p>'
    return f'<ul class="verdict">{"".join(said)}</ul>{unfair}{gone if lost else ""}{noted}'


def _settings(comparison: Comparison, differing: Table) -> str:
    evidence = comparison.evidence
    shared = shared_settings(evidence.trials)
    rows = tuple(Row("", (Cell(key), Cell(plain(value)))) for key, value in sorted(shared.items()))
    about = (("", "Settings that every run has."),)
    common = _table(Table("Common settings", about, "", ("setting", "value"), "ll", rows))
    parts = [_details(f"Common to all runs ({_count(len(rows), 'setting')})", common)]
    parts += [_details(f"All settings of {arm.name}", _configuration(arm)) for arm in evidence.arms]
    return (_table(differing) if differing.rows else "") + "".join(parts)


def _configuration(arm: Arm) -> str:
    tasks = {trial.task: trial.settings for trial in arm.trials}
    keys = sorted(set().union(*tasks.values()))
    rows = tuple(
        Row("", (Cell(key), *(Cell(plain(own[key]) if key in own else NOTHING) for own in tasks.values())))
        for key in keys
    )
    about = (("", "The seed and settings that change no number are left out."),)
    head = ("setting", *tasks)
    return _table(Table(f"Settings of {arm.name}", about, "", head, "l" * len(head), rows))


def _runs(comparison: Comparison, lost: Table) -> str:
    evidence = comparison.evidence
    rows = []
    for arm in evidence.arms:
        for task, trials in groupby(arm.trials, key=lambda trial: trial.task):
            own = list(trials)
            decimals = places(trial.final for trial in own)
            for trial in own:
                ends = [
                    number(trial.along(axis)[-1], 0) if len(trial.returns) else NOTHING
                    for axis in ("env_steps", "labels", "wall_s")
                ]
                cells = (
                    str(trial.seed),
                    how_lost(comparison, trial) or "finished",
                    number(trial.final, decimals),
                    *ends,
                    place_of(trial),
                )
                rows.append(Row(f"{arm.name} on {task}", tuple(map(Cell, cells))))
    head = ("seed", "state", "final return", "env steps", "labels", "wall-clock (s)", "place")
    about = (
        ("", f"Final return: mean at the last {FINAL_EVALUATIONS} evaluations, of unfinished runs too."),
    )
    every = _table(Table("All runs", about, "arm and task", head, "rlrrrrl", tuple(rows)))
    return (_table(lost) if lost.rows else "<p>Every run finished, and none collapsed.</p>") + _details(
        f"All runs ({len(rows)})", every
    )


def _provenance(trials: Sequence[Trial]) -> str:
    apart = ("started", "command")
    keys = dict.fromkeys(key for trial in trials for key in trial.origin if key not in apart)
    rows = []
    for key in keys:
        found = Counter(plain(trial.origin.get(key)) for trial in trials)
        values = [value if len(found) == 1 else f"{value} ({_count(n, 'run')})" for value, n in found.items()]
        rows.append(
            Row("", (Cell({"dirty": "code differs from the commit"}.get(key, key)), Cell("; ".join(values))))
        )
    dates = sorted(str(trial.origin["started"]) for trial in trials if trial.origin.get("started"))
    if dates:
        rows.append(Row("", (Cell("runs started"), Cell(" to ".join(dict.fromkeys((dates[0], dates[-1])))))))
    spent = float(sum(np.nanmax(trial.wall_s) for trial in trials if np.isfinite(trial.wall_s).any()))
    rows.append(Row("", (Cell("time of all runs"), Cell(f"{number(spent / 3600, 2)} hours"))))
    commands = Counter(str(trial.origin["command"]) for trial in trials if trial.origin.get("command"))
    listed = _list(f"<code>{_safe(line)}</code> ({_count(n, 'run')})" for line, n in commands.items())
    about = (("", "What the runs say of how they were made."),)
    facts = Table("Provenance", about, "", ("what", "value"), "ll", tuple(rows))
    return _table(facts, titled=False) + _details(f"Command lines ({len(commands)})", listed)


def _made(comparison: Comparison, command: str | None) -> str:
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
        f"<dt>{_safe(name)}</dt><dd>{_safe(value)}</dd>\n" for name, value in facts.items() if value
    )
    return f"<dl>{items}</dl><p>The same runs and options give the same numbers.</p>"


def _definitions() -> str:
    items = "".join(f"<dt>{_safe(term)}</dt><dd>{_safe(words)}</dd>\n" for term, words in GLOSSARY.items())
    more = "<p>Formulas, sources and measured coverage are in <code>docs/statistics.md</code>.</p>"
    return _details(f"What the numbers mean ({len(GLOSSARY)})", f"<dl>{items}</dl>{more}")


# HTML


def _safe(words: str) -> str:
    return html.escape(words)


def _list(items: Iterator[str] | Sequence[str]) -> str:
    """A list of what is HTML already; empty without items."""
    inside = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul>{inside}</ul>" if inside else ""


def _details(summary: str, inside: str) -> str:
    return f"<details><summary>{_safe(summary)}</summary>{inside}</details>" if inside else ""


def _table(table: Table, caution: str = "", titled: bool = True) -> str:
    """A table that scrolls within itself where it is wider than the page; ``titled`` shows its title."""
    head = "".join(
        f'<th scope="col" class="{side}">{_safe(name)}</th>'
        for side, name in zip(table.align, table.head, strict=True)
    )
    bodies = []
    for group, rows in groupby(table.rows, key=lambda row: row.group):
        lines = [_line(row, table.align) for row in rows]
        if group:
            span = f'<th scope="rowgroup" colspan="{len(table.head)}"><span>{_safe(group)}</span></th>'
            lines.insert(0, f'<tr class="group">{span}</tr>')
        bodies.append(f"<tbody>{''.join(lines)}</tbody>\n")
    name = _safe(table.title)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{name}"><table>'
        f"<caption{'' if titled else ' class=unseen'}>{name}</caption>"
        f"<thead><tr>{head}</tr></thead>\n{''.join(bodies)}</table></div>"
        f'{_caution(caution)}<p class="about">{_safe(table.caption)}</p>\n'
    )


def _caution(words: str) -> str:
    return f'<p class="caution"><a href="#caveats">{_safe(words)}</a></p>' if words else ""


def _line(row: Row, align: str) -> str:
    name, *others = row.cells
    cells = "".join(
        f'<td class="{side}{_mark(cell.text)}">{_cell(cell)}</td>'
        for side, cell in zip(align[1:], others, strict=True)
    )
    return f'<tr><th scope="row" class="{align[0]}">{_cell(name)}</th>{cells}</tr>\n'


def _mark(words: str) -> str:
    return f" {words}" if words in ("better", "worse", "undecided") else ""


def _cell(cell: Cell) -> str:
    words = re.sub(r"(?<![\w-])-(?=[\d∞])", "&minus;", _safe(cell.text))
    return f"<strong>{words}</strong>" if cell.bold else words


def _picture(name: str, path: Path) -> str:
    shown, reading = _PICTURES.get(name, (name.replace("_", " "), ""))
    reading = reading.format(level=f"{LEVEL:.0%}")
    pixels, lines = path.read_bytes(), path.with_suffix(".svg").read_bytes()
    kind, data = ("svg+xml", lines) if len(lines) < max(LARGE, len(pixels)) else ("png", pixels)
    width = int.from_bytes(pixels[16:20]) / PIXELS_PER_REM
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return (
        f'<figure id="picture-{_safe(name)}">'
        f'<div class="scroll" role="region" tabindex="0" aria-label="{_safe(shown)}">'
        f'<img style="--width: {width:g}rem" alt="{_safe(f"{shown}. {reading}")}" src="{source}"></div>'
        f"<figcaption>{_safe(reading)}</figcaption></figure>\n"
    )


def _links(videos: Sequence[Path], path: Path) -> dict[str, str]:
    """Address of every video as seen from the page, by the same address as it is read."""
    addresses = dict.fromkeys(Path(os.path.relpath(video, path.parent)).as_posix() for video in videos)
    return {address: address for address in addresses}
