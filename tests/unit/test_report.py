"""Reports: every number, arm, task, failed run and caveat is there, and nothing of a run becomes markup."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sailctl.analysis.arms import gather
from sailctl.analysis.compare import Comparison, compare
from sailctl.analysis.contrasts import OVERALL, Options
from sailctl.analysis.evidence import Trial
from sailctl.analysis.report import (
    Table,
    contrasts_table,
    latex,
    markdown,
    markup,
    page,
    performance_table,
    stability_table,
    text,
    write_report,
)
from sailctl.analysis.report.formats import WIDTH
from sailctl.analysis.report.glossary import GLOSSARY
from sailctl.analysis.report.numbers import estimate, number, p_value, places
from sailctl.analysis.scores import FINAL
from sailctl.analysis.statistics import Estimate
from sailctl.core.types import UserError
from tests.trials import make_trial

QUICK = Options(draws=300)
TASKS = ("hopper-v5", "swimmer-v5")
ERROR = "NaN <script>alert(1)</script> & 50% of a_b | {x} [y](z)\nsecond line"
NASTY = "sail <i>|&_"


def learned(level: float, seed: int) -> list[float]:
    """A curve from 0 to about ``level``, with noise that the seed decides."""
    noise = np.random.default_rng(seed).normal(0, 0.05 * abs(level), 5)
    return [0.0, *(level * np.array([0.3, 0.7, 1.0, 1.0, 1.0]) + noise)]


def trials_of(levels: dict[tuple[str, str], float], seeds: int = 6) -> list[Trial]:
    """Runs of (algorithm, task) that reach about the level."""
    return [
        make_trial(learned(level, 100 * i + seed), task=task, algorithm=algorithm, seed=seed)
        for i, ((algorithm, task), level) in enumerate(levels.items())
        for seed in range(seeds)
    ]


@pytest.fixture(scope="module")
def decided() -> Comparison:
    """sail_revkl is better on the first task alone, where a run of sail failed; dpo_online equals sail."""
    first, second = TASKS
    levels = {
        ("sail", first): 1000.0,
        ("sail", second): 1000.0,
        ("sail_revkl", first): 2000.0,
        ("sail_revkl", second): 1000.0,
        ("dpo_online", first): 1000.0,
        ("dpo_online", second): 1000.0,
    }
    trials = trials_of(levels)
    trials[2] = replace(trials[2], state="failed", error=ERROR)
    return compare(gather(trials), QUICK)


@pytest.fixture(scope="module")
def unfair() -> Comparison:
    """Arms with a name that is markup, and two caveats of which one is."""
    trials = [
        make_trial(
            learned(100, seed),
            algorithm=algorithm,
            seed=seed,
            settings={"oracle.mistake": mistake},
            error=error,
        )
        for algorithm, mistake, error in (("sail", 0.0, None), (NASTY, "<b>|&_", ERROR))
        for seed in range(3)
    ]
    trials[-1] = replace(trials[-1], state="interrupted")
    return compare(gather(trials, force=True), QUICK)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures in place of the real ones."""

    def draw(_: Comparison, folder: Path) -> dict[str, Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = {name: folder / f"{name}.png" for name in ("intervals", "learning_curves")}
        for path in paths.values():
            path.write_bytes(PNG)
            path.with_suffix(".svg").write_text(
                '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
            )
        return paths

    monkeypatch.setattr(page, "all_figures", draw)


PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (1440).to_bytes(4) + (720).to_bytes(4)


def cell(table: Table, group: str, row: str, column: str) -> str:
    """What stands in a table."""
    (found,) = [line for line in table.rows if line.group == group and line.cells[0].text == row]
    return found.cells[table.head.index(column)].text


def bold(table: Table) -> set[tuple[str, str, str]]:
    """(group, row, column) of the cells in bold."""
    return {
        (row.group, row.cells[0].text, name)
        for row in table.rows
        for name, found in zip(table.head, row.cells, strict=True)
        if found.bold
    }


# Numbers


@pytest.mark.parametrize(
    ("value", "decimals", "sign", "shown"),
    [
        (1234567.8, 0, "", "1,234,568"),
        (-1234.5, 1, "", "-1,234.5"),
        (0.12345, 3, "+", "+0.123"),
        (-0.0001, 2, "", "0.00"),
        (0.0001, 2, "+", "0.00"),
        (math.nan, 2, "", "-"),
        (math.inf, 0, "", "∞"),
    ],
)
def test_numbers(value: float, decimals: int, sign: str, shown: str):
    assert number(value, decimals, sign) == shown


@pytest.mark.parametrize(
    ("values", "decimals"),
    [
        ([0.5, 0.6], 3),
        ([1.2], 2),
        ([12.0], 1),
        ([123.0], 0),
        ([1e6], 0),
        ([1e-9], 3),
        ([], 2),
        ([0.0, math.nan], 2),
        ([0.5, 1000.0, 0.6], 3),
    ],
)
def test_decimals_show_three_digits_of_a_typical_number(values: list[float], decimals: int):
    assert places(values) == decimals


def test_intervals_and_p_values():
    assert estimate(Estimate(1234.4, 1000.0, 2000.0), 0) == "1,234 [1,000, 2,000]"
    assert estimate(Estimate(0.5, -0.25, 1.0), 2, "+") == "+0.50 [-0.25, +1.00]"
    assert estimate(Estimate(0.5, math.nan, math.nan), 2) == "0.50"
    assert estimate(Estimate(math.nan, math.nan, math.nan), 2) == "-"
    assert estimate(Estimate(3000.0, 2000.0, math.inf), 0) == "3,000 [2,000, ∞]"
    assert estimate(Estimate(math.inf, math.inf, math.inf), 0) == "∞"
    assert [p_value(p) for p in (0.00099, 0.001, 0.5)] == ["< 0.001", "0.001", "0.500"]


# Tables


def test_performance_is_that_of_the_runs(decided: Comparison):
    table = performance_table(decided)
    assert [row.group for row in table.rows] == [scope for scope in (OVERALL, *TASKS) for _ in range(3)]
    finals = [run.final for run in decided.evidence.arm("sail_revkl").on("hopper-v5")]
    half = stats.t.interval(0.95, 5, loc=np.mean(finals), scale=stats.sem(finals))
    shown = cell(table, "hopper-v5", "sail_revkl", "final return")
    assert shown == f"{np.mean(finals):,.0f} [{half[0]:,.0f}, {half[1]:,.0f}]"
    for task in TASKS:
        scores = decided.scores["sail_revkl"][task]["final"]
        shown = cell(table, task, "sail_revkl", "final score")
        assert float(shown.split()[0]) == pytest.approx(np.mean(scores), abs=6e-4)
        robust = cell(table, task, "sail_revkl", "IQM")
        assert float(robust) == pytest.approx(stats.trim_mean(scores, 0.25), abs=6e-4)
    assert cell(table, "hopper-v5", "sail (baseline)", "failed") == "1/6"
    assert cell(table, OVERALL, "sail (baseline)", "failed") == "1/12"
    assert cell(table, OVERALL, "sail (baseline)", "final return") == "-", "returns of tasks do not add up"
    assert cell(table, "hopper-v5", "sail_revkl", "reached it") == "6/6"


def test_contrasts_are_those_of_the_comparison(decided: Comparison):
    table = contrasts_table(decided)
    for c in decided.contrasts:
        if c.measure == FINAL.key:
            group = f"final score, {c.task}"
            assert cell(table, group, c.arm, "verdict") == c.verdict
            assert cell(table, group, c.arm, "p (Holm)") == p_value(c.p_holm)
            shown = [float(x) for x in re.findall(r"[-+]?\d\.\d+", cell(table, group, c.arm, "difference"))]
            assert shown == pytest.approx([c.difference.value, c.difference.low, c.difference.high], abs=6e-3)
            assert cell(table, group, c.arm, "P(improvement)").startswith(f"{c.improvement.value:.2f} [")
            assert cell(table, group, c.arm, "Hedges' g") == number(c.g, 2, "+")
    assert {row.cells[0].text for row in table.rows} == {"sail_revkl", "dpo_online"}
    steady = contrasts_table(decided, stability=True)
    assert {row.group for row in steady.rows if "risk" in row.group} == {
        f"short-term risk, {OVERALL}",
        f"long-term risk, {OVERALL}",
    }


def test_bold_is_the_best_arm_only_where_its_difference_is_decided(decided: Comparison):
    verdicts = {(c.arm, c.task): c.verdict for c in decided.contrasts if c.measure == FINAL.key}
    assert verdicts["sail_revkl", "hopper-v5"] == "better"
    assert verdicts["sail_revkl", "swimmer-v5"] == verdicts["dpo_online", "swimmer-v5"] == "undecided"
    found = bold(performance_table(decided))
    assert ("hopper-v5", "sail_revkl", "final score") in found
    assert not [place for place in found if place[0] == "swimmer-v5"]
    assert {arm for _, arm, _ in found} == {"sail_revkl"}


def test_the_baseline_is_bold_only_where_all_others_are_worse():
    levels = {("sail", "hopper-v5"): 2000.0, ("sail_revkl", "hopper-v5"): 1000.0}
    beaten = compare(gather(trials_of(levels)), QUICK)
    assert ("hopper-v5", "sail (baseline)", "final score") in bold(performance_table(beaten))
    close = compare(gather(trials_of({**levels, ("dpo_online", "hopper-v5"): 1995.0})), QUICK)
    assert {c.verdict for c in close.headlines} == {"worse", "undecided"}
    assert not [place for place in bold(performance_table(close)) if place[2] == "final score"]


def test_every_column_is_in_the_glossary(decided: Comparison):
    plain = {"runs", "reached it", "pairs", "did not finish", "share of failed runs", "verdict"}
    known = {word for term in GLOSSARY for word in (term, *term.split(", "))}
    tables = performance_table(decided), contrasts_table(decided), stability_table(decided)
    assert {name for table in tables for name in table.head} - known == plain


# Formats


def markdown_rows(written: str) -> list[list[str]]:
    """Cells of all lines of tables, without the lines below heads."""
    lines = [line for line in written.splitlines() if line.startswith("|") and not set(line) <= set("|-: ")]
    return [[part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_markdown_has_every_cell(decided: Comparison):
    rows = markdown_rows(markdown(decided))
    tables = performance_table(decided), contrasts_table(decided)
    expected = [[table.group, *table.head] for table in tables]
    for table, head in zip(tables, expected, strict=True):
        first = rows.index(head)
        for row, line in zip(rows[first + 1 :], table.rows, strict=False):
            marked = [f"**{c.text}**" if c.bold else c.text for c in line.cells]
            assert [part.replace("&lt;", "<") for part in row] == [line.group, *marked]
    assert len(rows) == sum(len(table.rows) + 1 for table in tables)


def test_markdown_escapes(unfair: Comparison):
    written = markdown(unfair)
    rows = markdown_rows(written)
    assert {len(row) for row in rows} == {len(rows[0]), len(rows[-1])}
    assert "sail &lt;i&gt;\\|&amp;\\_" in written
    assert "<i>" not in written
    assert "<b>" not in written


def test_latex_has_every_row_and_is_closed(decided: Comparison, unfair: Comparison):
    written = latex(decided)
    lines = [line for line in written.splitlines() if line.endswith(r"\\")]
    assert len(lines) == len(performance_table(decided).rows) + len(contrasts_table(decided).rows) + 2
    shown = cell(performance_table(decided), "hopper-v5", "sail_revkl", "final score")
    assert f"\\textbf{{{shown}}}" in written
    for each in (written, latex(unfair)):
        bare = re.sub(r"\\[\\{}$&#%_]", "", each)
        assert bare.count("{") == bare.count("}")
        assert bare.count("$") % 2 == 0
        assert each.count(r"\toprule") == each.count(r"\bottomrule") == each.count(r"\end{table}") == 2
        body = [line for line in bare.splitlines() if line.endswith(r"\\") or " & " in line]
        assert {line.count(" & ") for line in body} == {6}
    assert r"sail $<$i$>$$|$\&\_" in latex(unfair)


def test_captions_say_seeds_intervals_and_what_bold_means(decided: Comparison):
    for written in (markdown(decided), latex(decided), text(decided)):
        said = " ".join(written.replace("\\", "").replace("$<$", "<").replace("&lt;", "<").split())
        assert "6 seeds per arm and task. Brackets: 95% intervals." in said
        assert re.search(
            r"(Bold|\*): the highest score, if its difference from the baseline is decided", said
        )
        assert "p < 0.05 after Holm" in said
    assert "Bold" not in text(decided), "a terminal shows no bold"


def test_text_keeps_to_a_narrower_terminal(decided: Comparison, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert 60 < max(map(len, text(decided).splitlines())) <= 80


def test_text_is_for_a_terminal(decided: Comparison, unfair: Comparison):
    for comparison in (decided, unfair):
        written = text(comparison)
        assert max(map(len, written.splitlines())) <= WIDTH
        assert "\x1b" not in written
        assert written.startswith("VERDICT\n- ")
        said = " ".join(written.split())
        for sentence in comparison.verdict:
            assert " ".join(sentence.split()) in said
        for name in [*(arm.name for arm in comparison.evidence.arms), *comparison.evidence.tasks]:
            assert name in written
    written = text(decided)
    marked = cell(performance_table(decided), "hopper-v5", "sail_revkl", "final score")
    assert f"*{marked}" in written
    unmarked = cell(performance_table(decided), "swimmer-v5", "sail_revkl", "final score")
    assert f" {unmarked}" in written
    assert "algo.name" in written
    assert "NaN <script>alert(1)</script>" in written


def test_columns_of_the_text_are_aligned(decided: Comparison):
    lines = text(decided).splitlines()
    head = next(line for line in lines if line.startswith("  arm ") and "final return" in line)
    edge = head.index("final score") + len("final score")
    for task in TASKS:
        for arm in ("sail (baseline)", "sail_revkl", "dpo_online"):
            shown = cell(performance_table(decided), task, arm, "final score")
            assert [line for line in lines if line.startswith(f"  {arm} ") and line[:edge].endswith(shown)]


# Caveats


@pytest.mark.usefixtures("drawn")
def test_caveats_are_in_every_output(unfair: Comparison, tmp_path: Path):
    assert len(unfair.evidence.caveats) == 2
    write_report(unfair, tmp_path / "r.html")
    written = (tmp_path / "r.html").read_text(encoding="utf-8")
    seen = read(written)
    assert seen.text.count("Not a fair comparison") >= 5, "at the top and beside tables"
    for caveat in unfair.evidence.caveats:
        assert caveat in seen.text
        assert " ".join(caveat.split()) in " ".join(text(unfair).split())
        first, *_ = re.split(r" \(|, such", caveat)
        for each in (markdown(unfair), latex(unfair).replace("\\", "")):
            assert each.count("Not a fair comparison") == 2
            assert each.count(first) == 2
    assert seen.text.index("Not a fair comparison") < seen.text.index("Not enough seeds")


@pytest.mark.usefixtures("drawn")
def test_a_fair_comparison_says_nothing_of_caveats(decided: Comparison, tmp_path: Path):
    write_report(decided, tmp_path / "r.html")
    for each in (text(decided), markdown(decided), latex(decided), (tmp_path / "r.html").read_text()):
        assert "Not a fair comparison" not in each


# The page


class Page(HTMLParser):
    """What a page shows, and its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "elements are closed in order"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(written: str) -> Page:
    page = Page()
    page.feed(written)
    assert page.open == []
    return page


@pytest.mark.usefixtures("drawn")
def test_the_page_shows_every_arm_task_and_failed_run(decided: Comparison, tmp_path: Path):
    figures = write_report(decided, tmp_path / "r.html", title="A & B", command="sailctl report <runs>")
    assert list(figures) == ["intervals", "learning_curves"]
    assert all(path.is_file() for path in figures.values())
    seen = read((tmp_path / "r.html").read_text(encoding="utf-8"))
    for word in (
        *(arm.name for arm in decided.evidence.arms),
        *TASKS,
        *(c.sentence for c in decided.headlines),
        " ".join(ERROR.split()),
        "runs/hopper-v5/sail/x-s2",
        "36 runs, 35 finished",
        "A & B",
        "sailctl report <runs>",
        "a" * 40,
        "algo.beta",
        "300",
    ):
        assert word in seen.text, word
    table = performance_table(decided)
    for row in table.rows:
        for found in row.cells:
            assert re.sub(r"(?<![\w-])-(?=\d)", "\N{MINUS SIGN}", found.text) in seen.text
    assert (tmp_path / "r.md").read_text(encoding="utf-8") == markdown(decided)
    assert (tmp_path / "r.tex").read_text(encoding="utf-8") == latex(decided)


@pytest.mark.usefixtures("drawn")
def test_nothing_of_a_run_becomes_markup(unfair: Comparison, tmp_path: Path):
    write_report(unfair, tmp_path / "r.html", title=f"<script>{NASTY}")
    written = (tmp_path / "r.html").read_text(encoding="utf-8")
    seen = read(written)
    assert not seen.all("script")
    assert not seen.all("i")
    assert not seen.all("b")
    assert NASTY in seen.text
    assert "<b>|&_" in seen.text


@pytest.mark.usefixtures("drawn")
def test_the_page_needs_no_network(decided: Comparison, tmp_path: Path):
    write_report(decided, tmp_path / "r.html")
    written = (tmp_path / "r.html").read_text(encoding="utf-8")
    seen = read(written)
    for tag, attributes in seen.elements:
        assert tag not in ("script", "link", "iframe", "object", "base"), tag
        for name in ("href", "src", "srcset", "data", "action"):
            if name in attributes:
                assert re.match(r"#[\w-]+$|data:image/(svg\+xml|png);base64,", attributes[name] or ""), (
                    attributes
                )
    assert "url(" not in written
    assert "@import" not in written
    policy = next(meta for meta in seen.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy["content"])


@pytest.mark.usefixtures("drawn")
def test_the_page_can_be_read_by_everyone(decided: Comparison, tmp_path: Path):
    write_report(decided, tmp_path / "r.html")
    seen = read((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert seen.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in seen.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert all(len(str(image["alt"])) > 40 for image in seen.all("img"))
    assert len(seen.all("img")) == 2
    assert all(head["scope"] in ("col", "row", "rowgroup") for head in seen.all("th"))
    assert len(seen.all("caption")) == len(seen.all("table")) > 5
    names = [str(attributes["id"]) for _, attributes in seen.elements if "id" in attributes]
    assert len(names) == len(set(names))
    targets = [str(link["href"])[1:] for link in seen.all("a")]
    assert len(targets) > 10
    assert set(targets) <= set(names)


@pytest.mark.usefixtures("drawn")
def test_the_same_comparison_gives_the_same_page(decided: Comparison, tmp_path: Path):
    pages = []
    for name in ("one", "two"):
        write_report(decided, tmp_path / name / "r.html")
        lines = (tmp_path / name / "r.html").read_text(encoding="utf-8").splitlines()
        pages.append([line for line in lines if "<dt>time</dt>" not in line])
        assert len(pages[-1]) == len(lines) - 1
    assert pages[0] == pages[1]


def test_a_large_drawing_is_embedded_as_pixels(decided: Comparison, tmp_path: Path):
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    for path in (small, large):
        path.write_bytes(PNG)
        path.with_suffix(".svg").write_bytes(b" " * (markup.LARGE + 1 if path is large else 10))
    written = page.page(decided, {"intervals": small, "stability": large}, "t", [], None)
    kinds = [str(image["src"])[:16] for image in read(written).all("img")]
    assert kinds == ["data:image/svg+x", "data:image/png;b"]
    assert "--width: 60rem" in written, "1440 pixels"


@pytest.mark.usefixtures("drawn")
def test_videos_are_linked_from_the_page(decided: Comparison, tmp_path: Path):
    run = tmp_path / "runs" / "hopper-v5" / "sail" / "x-s0"
    run.mkdir(parents=True)
    inside, beside, given = run / "walk.mp4", run.parent / "all seeds #1.mp4", tmp_path / "given.mp4"
    for video in (inside, beside, given):
        video.write_bytes(b"")
    arms = decided.evidence.arms
    trials = [replace(trial, place=str(run)) for trial in arms[0].trials]
    evidence = replace(decided.evidence, arms=(replace(arms[0], trials=tuple(trials)), *arms[1:]))
    write_report(replace(decided, evidence=evidence), tmp_path / "out" / "r.html", videos=[given])
    seen = read((tmp_path / "out" / "r.html").read_text(encoding="utf-8"))
    links = [str(link["href"]) for link in seen.all("a") if str(link["href"]).endswith(".mp4")]
    assert links == [
        "../given.mp4",
        "../runs/hopper-v5/sail/x-s0/walk.mp4",
        "../runs/hopper-v5/sail/all%20seeds%20%231.mp4",
    ]


@pytest.mark.usefixtures("drawn")
def test_places_are_told_from_the_working_directory(
    decided: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    arms = decided.evidence.arms
    trials = [replace(trial, place=str(tmp_path / "runs" / "here")) for trial in arms[0].trials]
    evidence = replace(decided.evidence, arms=(replace(arms[0], trials=tuple(trials)), *arms[1:]))
    write_report(replace(decided, evidence=evidence), Path("r.html"))
    written = Path("r.html").read_text(encoding="utf-8")
    assert "runs/here" in written
    assert str(tmp_path) not in written


@pytest.mark.usefixtures("drawn")
def test_one_arm_makes_a_report_without_contrasts(tmp_path: Path):
    alone = compare(gather(trials_of({("sail", "hopper-v5"): 100.0}, seeds=2)), QUICK)
    write_report(alone, tmp_path / "r.html")
    seen = read((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "There is only one arm" in seen.text
    assert "Differences from" not in seen.text
    assert "There is only one arm" in text(alone)
    assert markdown(alone).count("---") == len(performance_table(alone).head) + 1
    assert latex(alone).count(r"\toprule") == 1
    assert not bold(performance_table(alone))


@pytest.mark.usefixtures("drawn")
def test_what_cannot_be_written_is_told_in_a_line(decided: Comparison, tmp_path: Path):
    with pytest.raises(UserError, match=r"must be an \.html file, got report\.pdf"):
        write_report(decided, Path("report.pdf"))
    with pytest.raises(UserError, match=r"no such video: .*gone\.mp4"):
        write_report(decided, tmp_path / "r.html", videos=[tmp_path / "gone.mp4"])
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        write_report(decided, tmp_path / "taken.html")


@pytest.mark.usefixtures("drawn")
def test_runs_are_told_apart_by_how_they_ended(tmp_path: Path):
    curves = {
        "good": [0, 50, 100, 100, 100],
        "collapsed": [0, 50, 100, 10, 10, 10],
        "never": [],
        "alone": [3.0],
    }
    trials = [make_trial(curve, seed=seed) for seed, curve in enumerate(curves.values())]
    trials[2] = replace(trials[2], state="failed", error="boom")
    comparison = compare(gather(trials), QUICK)
    write_report(comparison, tmp_path / "r.html")
    seen = read((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "3 runs failed, did not finish or collapsed" in seen.text
    for written in (seen.text, text(comparison)):
        for how in ("collapsed", "boom", "finished, but was never evaluated"):
            assert how in written
    assert cell(performance_table(comparison), "hopper-v5", "sail", "failed") == "3/4"
