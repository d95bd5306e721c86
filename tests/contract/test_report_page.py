"""The report in a real browser, as wide as a laptop and a phone: nothing is cut off, missing or fetched."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from sailctl.analysis.arms import gather
from sailctl.analysis.compare import compare
from sailctl.analysis.contrasts import Options
from sailctl.analysis.report import write_report
from tests.trials import make_trial

WIDTHS = (1280, 390)
"""CSS pixels: a laptop, a phone."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_S = 120.0
"""A slow machine's browser takes ten seconds; one that hangs is stopped."""

# Waits for all pictures, opens what is folded, then tells what the page around it asks for.
PROBE = """<script>
addEventListener("load", async () => {
  const all = names => [...document.querySelectorAll(names)];
  const box = each => each.getBoundingClientRect();
  const width = () => document.documentElement.scrollWidth;
  await Promise.allSettled(all("img").map(image => image.decode()));
  const closed = width();
  for (const each of all("details")) each.open = true;
  parent.postMessage({
    inner: innerWidth,
    closed: closed,
    open: width(),
    images: all("img").map(image => [image.alt, image.naturalWidth, box(image).width]),
    headings: all("h1, h2").map(each => each.textContent),
    outside: all("p, li, dd, h1, h2, summary, .scroll")
      .filter(each => box(each).left < 0 || box(each).right > innerWidth)
      .map(each => each.outerHTML.slice(0, 200)),
    wide: all(".scroll").filter(each => each.scrollWidth > each.clientWidth).length,
    tables: all("table").length,
    small: all("p, li, td, th, summary, figcaption")
      .filter(each => parseFloat(getComputedStyle(each).fontSize) < 12).length,
    fetched: performance.getEntriesByType("resource")
      .map(each => each.name).filter(name => !name.startsWith("data:")),
  }, "*");
});
</script>"""
FRAMES = """<!DOCTYPE html><meta charset="utf-8"><pre id="found"></pre><script>
addEventListener("message", event => {
  const found = document.getElementById("found");
  found.textContent += JSON.stringify(event.data) + "\\n";
});
</script>"""


@dataclass(frozen=True)
class Seen:
    """What a browser says of the page at one width."""

    inner: int
    closed: int
    open: int
    images: list[tuple[str, int, float]]
    headings: list[str]
    outside: list[str]
    wide: int
    tables: int
    small: int
    fetched: list[str]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of three arms with long names, on three tasks, with failed runs and caveats."""
    rng = np.random.default_rng(0)
    trials = [
        make_trial(
            [0.0, *(level * np.array([0.3, 0.7, 1.0, 1.0, 1.0]) + rng.normal(0, 0.1 * level, 5))],
            task=task,
            algorithm=algorithm,
            seed=seed,
            state="failed" if seed == 2 and algorithm == "dpo_online" else "finished",
            error="a_long_word_" * 30,
            settings={"algo.gamma": gamma, "oracle.mistake": gamma / 10},
        )
        for algorithm, gamma, level in (
            ("sail", 0.0, 1000),
            ("sail_revkl", 0.1, 1500),
            ("sail_revkl", 1.0, 1600),
            ("dpo_online", 0.0, 500),
        )
        for task in ("halfcheetah-v5", "hopper-v5", "walker2d-v5")
        for seed in range(4)
    ]
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(compare(gather(trials, force=True), Options(draws=200)), path)
    return path


@pytest.fixture(scope="module")
def seen(page: Path) -> dict[int, Seen]:
    """The page as a browser shows it in a frame of each of ``WIDTHS`` (no window is as narrow as a phone)."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is installed")
    written = page.read_text(encoding="utf-8")
    copy = page.with_name("copy.html")
    # The page's own policy would keep the probe from running.
    policy = r'<meta http-equiv="Content-Security-Policy"[^>]*>'
    probed, count = re.subn(policy, lambda _: PROBE, written)
    assert count == 1
    copy.write_text(probed, encoding="utf-8")
    frames = "".join(f'<iframe src="copy.html" width="{w}" height="900"></iframe>' for w in WIDTHS)
    outer = page.with_name("frames.html")
    outer.write_text(FRAMES + frames, encoding="utf-8")
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--no-first-run",
        f"--user-data-dir={page.with_name('browser')}",
        "--virtual-time-budget=20000",
        "--dump-dom",
        outer.as_uri(),
    ]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    match = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, done.stderr
    found = [Seen(**json.loads(line)) for line in unescape(match[1]).splitlines()]
    assert sorted(each.inner for each in found) == sorted(WIDTHS), "both frames answered"
    return {each.inner: each for each in found}


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_does_not_scroll_sideways(seen: dict[int, Seen], width: int):
    assert seen[width].closed <= width
    assert seen[width].open <= width, "with everything unfolded"
    assert seen[width].outside == []


@pytest.mark.parametrize("width", WIDTHS)
def test_every_picture_is_there(seen: dict[int, Seen], width: int):
    assert len(seen[width].images) >= 5
    for alt, natural, shown in seen[width].images:
        assert len(alt) > 40
        assert natural > 0, alt
        assert shown >= 300, alt


@pytest.mark.parametrize("width", WIDTHS)
def test_sections_come_in_their_order(seen: dict[int, Seen], width: int):
    title, *sections = seen[width].headings
    assert "sail" in title
    assert sections == [
        "Verdict",
        "Which arm is better",
        "Performance",
        "Differences from the baseline",
        "Learning curves",
        "Stability",
        "Performance profiles",
        "Before and after training",
        "Seeds needed",
        "Settings",
        "Runs",
        "Provenance",
        "Definitions",
        "How this page was made",
    ]


@pytest.mark.parametrize("width", WIDTHS)
def test_letters_are_large_enough_to_read(seen: dict[int, Seen], width: int):
    assert seen[width].small == 0


def test_wide_tables_scroll_within_themselves(seen: dict[int, Seen]):
    laptop, phone = (seen[width] for width in WIDTHS)
    assert phone.wide > laptop.wide
    assert phone.tables == laptop.tables >= 10


def test_nothing_is_fetched(seen: dict[int, Seen], page: Path):
    assert all(each.fetched == [] for each in seen.values())
    addresses = re.findall(r'(?:src|href|srcset|poster|data)="([^"]*)"', page.read_text(encoding="utf-8"))
    assert len(addresses) > 15
    assert not [a[:60] for a in addresses if not a.startswith(("#", "data:image/"))]


def test_the_page_can_be_sent_by_mail(page: Path):
    assert page.stat().st_size < 5_000_000
