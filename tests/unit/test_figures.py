"""Pictures and their table: the right numbers are drawn, and every run is accounted for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy import stats

from sailctl.analysis import figures
from sailctl.analysis.arms import gather
from sailctl.analysis.compare import Comparison, compare
from sailctl.analysis.contrasts import Options
from sailctl.analysis.evidence import Trial
from sailctl.analysis.figures import (
    all_figures,
    distributions,
    heat_map,
    learning_curves,
    maps,
    pages,
    plot_runs,
    swept,
)
from sailctl.config import Config
from sailctl.core.types import RunError, UserError
from sailctl.runs.recorder import open_run
from sailctl.runs.results import RunRecord, load_run
from sailctl.sweeps.compose import compose_jobs

SETTINGS: dict[str, object] = {
    "algo.name": "sail",
    "algo.responses": "policy",
    "algo.w": 1.0,
    "env_steps": 5000,
    "evaluation.every": 1000,
}


EXPERT = 60.0


@pytest.fixture(autouse=True)
def one_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reference policies of one task, whatever ships."""
    monkeypatch.setattr(
        "sailctl.analysis.figures.curves.scale_of_references", lambda: {"walker2d-v5": (0.0, EXPERT)}
    )


def a_trial(task: str, algorithm: str, seed: int, returns: Sequence[float], **changes: Any) -> Trial:
    """A run with an evaluation at every 1000 env steps; ``settings`` among the changes join its own."""
    settings = {**SETTINGS, "algo.name": algorithm, **changes.pop("settings", {})}
    i = np.arange(len(returns), dtype=np.float64)
    moving = float(settings["algo.responses"] == "policy")
    trial = Trial(
        task=task, algorithm=algorithm, seed=seed, state="finished", error=None, settings=settings, origin={},
        place=f"{task} {algorithm} {seed} {settings}", iteration=i, env_steps=1000 * i * moving,
        labels=10 * i * moving, wall_s=(2.0 + seed) * i, cpu_s=1.0 * i,
        returns=np.array(returns, dtype=np.float64),
        lengths=np.full(len(i), 100.0), kl=np.where(i > 0, 0.01 * i, np.nan),
        before=np.array([returns[0] - 1, returns[0] + 1]), after=np.array([returns[-1] - 1, returns[-1] + 1]),
    )  # fmt: skip
    return replace(trial, **changes)


def rising(top: float, rng: np.random.Generator) -> list[float]:
    x = np.arange(6)
    return (top * x / 5 * rng.uniform(0.7, 1.2) + 0.05 * top * rng.standard_normal(6)).tolist()


def arms(names: Sequence[str], tasks: Sequence[str] = ("hopper-v5",), seeds: int = 4) -> list[Trial]:
    rng = np.random.default_rng(0)
    return [
        a_trial(t, name, seed, rising(100, rng)) for t in tasks for name in names for seed in range(seeds)
    ]


def compared(trials: Sequence[Trial]) -> Comparison:
    return compare(gather(trials, force=True), Options(draws=200))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would have been written."""
    kept: list[Figure] = []
    monkeypatch.setattr(pages, "_save", lambda figure, _: kept.append(figure))
    return kept


def panel_of(figure: Figure, title: str, row: int = 0) -> Axes:
    """The panel of this title, or one that stands so many rows below it in the column."""
    top = next(panel for panel in figure.axes if panel.get_title() == title)
    column = [p for p in figure.axes if p.get_subplotspec().colspan == top.get_subplotspec().colspan]
    return column[column.index(top) + row]


def lines(panel: Axes, label: str) -> list[np.ndarray]:
    """(points, 2) of every line of that label."""
    return [line.get_xydata() for line in panel.get_lines() if line.get_label() == label]


def faint(panel: Axes, label: str) -> int:
    found = [c for c in panel.collections if isinstance(c, LineCollection) and c.get_label() == label]
    return sum(len(collection.get_segments()) for collection in found)


def words_of(figure: Figure) -> list[str]:
    """The text of all legends."""
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


# Learning curves


def test_the_band_is_the_t_interval_of_the_mean(drawn: list[Figure]):
    returns = [[0.0, 10.0, 40.0], [2.0, 30.0, 20.0], [4.0, 20.0, 90.0]]
    evidence = gather([a_trial("hopper-v5", "sail", seed, own) for seed, own in enumerate(returns)])
    learning_curves(evidence, Path("x.png"))
    panel = panel_of(drawn[0], "hopper-v5")
    assert faint(panel, "seeds") == 3
    ((mean,), (band,)) = lines(panel, "mean"), [c for c in panel.collections if c.get_label() == "band"]
    np.testing.assert_allclose(mean, [[0, 2], [1000, 20], [2000, 50]])
    ends = stats.t.interval(0.95, 2, loc=[2, 20, 50], scale=stats.sem(returns))
    corners = band.get_paths()[0].vertices
    for x, low, high in zip(mean[:, 0], *ends, strict=True):
        at = corners[corners[:, 0] == x, 1]
        np.testing.assert_allclose([at.min(), at.max()], [low, high])


def test_two_seeds_have_no_band(drawn: list[Figure]):
    learning_curves(gather(arms(["sail"], seeds=2)), Path("x.png"))
    panel = panel_of(drawn[0], "hopper-v5")
    assert len(lines(panel, "mean")) == 1
    assert [c.get_label() for c in panel.collections] == ["seeds"]
    assert words_of(drawn[0]) == ["sail (2 seeds)", "one seed"]


def test_a_wide_interval_does_not_decide_the_limits_of_a_panel(drawn: list[Figure]):
    trials = [a_trial("hopper-v5", "sail", seed, [0, 10, last]) for seed, last in enumerate((20, 20, 100))]
    learning_curves(gather(trials), Path("x.png"))
    panel = panel_of(drawn[0], "hopper-v5")
    (band,) = [part for part in panel.collections if part.get_label() == "band"]
    assert band.get_paths()[0].get_extents().y1 > 150
    assert panel.get_ylim()[1] < 120


def test_the_expert_is_the_upper_bound_where_there_is_one(drawn: list[Figure]):
    trials = [a_trial(task, "sail", 0, [0, 10, 20]) for task in ("hopper-v5", "walker2d-v5")]
    learning_curves(gather(trials), Path("x.png"))
    for task, levels in (("hopper-v5", []), ("walker2d-v5", [EXPERT])):
        experts = [line for line in panel_of(drawn[0], task).lines if line.get_label() == "expert"]
        assert [line.get_ydata()[0] for line in experts] == levels
    assert "expert reference (true reward)" in words_of(drawn[0])


def test_curves_go_along_steps_labels_and_time(drawn: list[Figure]):
    learning_curves(gather(arms(["sail"])), Path("x.png"))
    panels = [panel_of(drawn[0], "hopper-v5", row) for row in range(3)]
    assert [panel.get_xlabel() for panel in panels] == ["env steps", "labels used", "wall-clock (s)"]
    # Seed 0 is the fastest with 2 s an evaluation: beyond its last one, not every run has been.
    assert [lines(panel, "mean")[0][-1, 0] for panel in panels] == [5000, 50, 10]
    learning_curves(gather(arms(["sail"])), Path("x.png"), axes=["labels"])
    assert [panel.get_xlabel() for panel in drawn[1].axes] == ["labels used"]


def test_runs_that_did_not_finish_are_shown_and_not_averaged(drawn: list[Figure]):
    finished = [a_trial("hopper-v5", "sail", seed, [0.0, 10.0, 20.0]) for seed in range(3)]
    others = [
        a_trial("hopper-v5", "sail", 3, [0.0, 99.0], state="failed"),
        a_trial("hopper-v5", "sail", 4, [0.0], state="running"),
        replace(finished[0], seed=5, state="failed", **empty()),
    ]
    learning_curves(gather([*finished, *others], force=True), Path("x.png"))
    panel = panel_of(drawn[0], "hopper-v5")
    assert (faint(panel, "seeds"), faint(panel, "not finished")) == (3, 2)
    np.testing.assert_allclose(lines(panel, "mean")[0][:, 1], [0, 10, 20])
    np.testing.assert_allclose(lines(panel, "ends")[0], [[1000, 99], [0, 0]])
    assert words_of(drawn[0])[0] == "sail (6 seeds, 3 not finished)"
    assert "a run that did not finish" in words_of(drawn[0])


def empty() -> dict[str, Any]:
    names = ("iteration", "env_steps", "labels", "wall_s", "returns", "lengths", "kl", "before", "after")
    return {name: np.zeros(0) for name in names}


def test_a_run_that_was_stopped_before_its_time_was_noted_is_drawn_up_to_there(drawn: list[Figure]):
    cut = a_trial("hopper-v5", "sail", 0, [0.0, 5.0, 9.0], state="running", wall_s=np.array([0, 3, np.nan]))
    learning_curves(gather([cut], force=True), Path("x.png"))
    np.testing.assert_allclose(lines(panel_of(drawn[0], "hopper-v5", 2), "ends")[0], [[3, 5]])


def test_what_learns_from_data_alone_is_level_but_along_iterations(drawn: list[Figure]):
    alone = {"algo.responses": "data", "algo.w": 0.0}
    offline = [
        a_trial("hopper-v5", "dpo_offline", seed, [0.0, 5.0, 30.0, 30.0, 30.0 + seed], settings=alone)
        for seed in range(3)
    ]
    learning_curves(gather([*arms(["sail"]), *offline], force=True), Path("x.png"))
    panels = [panel_of(drawn[0], "hopper-v5", row) for row in range(4)]
    for panel in panels[:3]:
        assert len(lines(panel, "mean")) == 1
        np.testing.assert_allclose(lines(panel, "level")[0][:, 1], 30 + 1 / 3)
    assert panels[3].get_xlabel() == "iterations"
    assert [len(lines(panels[3], label)) for label in ("mean", "level")] == [2, 0]


def test_counts_over_tasks(drawn: list[Figure]):
    trials = arms(["sail", "sail_revkl"], ["hopper-v5", "swimmer-v5"])
    trials[5] = replace(trials[5], state="failed")
    evidence = gather([*trials, a_trial("hopper-v5", "sail", 9, [0.0, 1.0])], force=True)
    learning_curves(evidence, Path("x.png"))
    assert words_of(drawn[0])[:2] == [
        "sail (4 to 5 seeds per task)",
        "sail_revkl (4 seeds per task, 1 of 8 runs not finished)",
    ]


def test_a_task_that_is_not_common_to_all_arms_leaves_no_trace(drawn: list[Figure]):
    alone = {"algo.responses": "data", "algo.w": 0.0}
    other = a_trial("swimmer-v5", "sail", 0, [0.0, 1.0], state="failed", settings=alone)
    learning_curves(gather([*arms(["sail", "dpo_online"]), other], force=True), Path("x.png"))
    assert len(drawn[0].axes) == 3
    assert words_of(drawn[0])[2:] == ["one seed", "95% interval of the mean"]


def test_many_tasks_are_wrapped_with_every_one_there_once(drawn: list[Figure]):
    tasks = [f"task{i}" for i in range(7)]
    learning_curves(gather(arms(["sail"], tasks, seeds=1)), Path("x.png"))
    assert sorted(panel.get_title() for panel in drawn[0].axes if panel.get_title()) == tasks
    assert len(drawn[0].axes) == 21
    assert max(panel.get_subplotspec().colspan.stop for panel in drawn[0].axes) == 4


def test_looks_are_fixed_and_apart():
    known = [figures.style_of(name) for name in figures.STYLES]
    for part in (0, 1):
        assert len({look[part] for look in known}) == len(known)
        assert figures.style_of("something_new")[part] not in {look[part] for look in known}
    assert figures.style_of("something_new") == figures.style_of("something_new")


@pytest.mark.parametrize("count", [2, 4, 12])
def test_settings_of_one_algorithm_look_different(count: int):
    trials = [a_trial("t", "sail", 0, [0.0, 1.0], settings={"algo.beta": b}) for b in range(1, count + 1)]
    evidence = gather([*trials, a_trial("t", "sail_revkl", 0, [0.0, 1.0], settings={"algo.beta": 1})])
    looks = figures.styles_of(evidence.arms)
    own = [look for name, look in looks.items() if name.startswith("sail algo")]
    assert len({(look.colour, look.line) for look in own}) == count
    assert {look.marker for look in own} == {"o"}
    assert len({look.colour for look in own}) == (1 if count <= 4 else count)
    assert looks["sail_revkl"].colour == figures.STYLES["sail_revkl"][0].lower()


@pytest.mark.parametrize("count", [5, 12])
def test_algorithms_of_other_names_look_different_too(count: int):
    """There are fewer colours for them than there may be names: those that share one differ in line."""
    names = [f"labels_{number}" for number in range(count)]
    evidence = gather([a_trial("t", name, 0, [0.0, 1.0]) for name in names])
    looks = figures.styles_of(evidence.arms)
    assert set(looks) == set(names)
    assert len({(look.colour, look.line) for look in looks.values()}) == count


# Files


def test_pictures_are_written_twice_and_alike(tmp_path: Path):
    evidence = gather(arms(["sail", "dpo_online"], ["hopper-v5", "halfcheetah-v5"]))
    path = tmp_path / "new" / "curves.png"
    learning_curves(evidence, path, ["env_steps"])
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[1] == 1440  # 7.2 inches at 200 dpi
    assert pixels[..., :3].std() > 0.1
    svg = path.with_suffix(".svg").read_text()
    words = {node.text for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")}
    assert {"hopper-v5", "halfcheetah-v5", "env steps", "true return", "sail (4 seeds per task)"} <= words
    learning_curves(evidence, path, ["env_steps"])
    assert path.with_suffix(".svg").read_text() == svg
    assert sorted(file.name for file in path.parent.iterdir()) == ["curves.png", "curves.svg"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/x\.png"):
        learning_curves(gather(arms(["sail"], seeds=1)), tmp_path / "file" / "x.png")
    with pytest.raises(UserError, match=r"must be a \.png file"):
        learning_curves(gather(arms(["sail"], seeds=1)), tmp_path / "x.pdf")


def test_all_figures_come_in_reading_order_with_every_arm_named(tmp_path: Path):
    paths = all_figures(compared(arms(["sail", "dpo_online"], seeds=3)), tmp_path)
    assert list(paths) == ["intervals", "learning_curves", "stability", "profiles", "before_after"]
    for path in paths.values():
        text = "".join(ElementTree.parse(path.with_suffix(".svg")).getroot().itertext())
        assert "sail" in text
        assert "dpo_online" in text
        assert matplotlib.image.imread(path).shape[1] >= 1000


def test_a_failed_run_alone_can_be_drawn(tmp_path: Path):
    comparison = compared([a_trial("hopper-v5", "sail", 0, [0.0, 1.0], state="failed")])
    assert all(path.is_file() for path in all_figures(comparison, tmp_path).values())


# The comparison


def test_the_forest_shows_the_comparisons_numbers(drawn: list[Figure]):
    comparison = compared(arms(["sail", "sail_revkl"], ["hopper-v5", "swimmer-v5"]))
    figures.intervals(comparison, Path("x.png"))
    score, difference, chance = drawn[0].axes
    names = [label.get_text() for label in score.get_yticklabels()]
    scopes = ("all tasks", "hopper-v5", "swimmer-v5")
    assert names == [name for scope in scopes for name in (scope, "sail", "sail_revkl")]
    expected = [comparison.of(arm, scope).final for scope, arm in scoped(comparison, ["sail", "sail_revkl"])]
    check_bars(score, expected)
    final = {(c.arm, c.task): c for c in comparison.contrasts if c.measure == "final"}
    contrasts = [final[arm, scope] for scope, arm in scoped(comparison, ["sail_revkl"])]
    check_bars(difference, [c.difference for c in contrasts])
    check_bars(chance, [c.improvement for c in contrasts])
    dots = np.concatenate(lines(score, "seeds"))
    assert len(dots) == 2 * 16  # over all tasks, and on each
    heights = dict(zip(score.get_yticks(), names, strict=True))
    assert {heights[value[0, 1]] for value in lines(difference, "value")} == {"sail_revkl"}


def scoped(comparison: Comparison, names: Sequence[str]) -> list[tuple[str, str]]:
    return [(scope, arm) for scope in (comparison.scope, *comparison.evidence.tasks) for arm in names]


def check_bars(panel: Axes, estimates: Sequence[Any]) -> None:
    values = [line[0, 0] for line in lines(panel, "value")]
    np.testing.assert_allclose(values, [e.value for e in estimates])
    ends = [line[:, 0] for line in lines(panel, "interval")]
    known = [[e.low, e.high] for e in estimates if np.isfinite(e.low)]
    np.testing.assert_allclose(np.reshape(ends, (-1, 2)), np.reshape(known, (-1, 2)))


def test_a_failed_run_is_a_cross_at_the_floor(drawn: list[Figure]):
    trials = arms(["sail"])
    trials[1] = replace(trials[1], state="failed")
    comparison = compared(trials)
    figures.intervals(comparison, Path("x.png"))
    (score,) = drawn[0].axes  # one arm has nobody to be compared with
    scale = comparison.scales["hopper-v5"]
    floor = scale.score(np.array(scale.floor))
    assert [line[:, 0].tolist() for line in lines(score, "not finished")] == [[floor]]
    assert len(lines(score, "seeds")[0]) == 3


def test_a_decided_difference_is_filled(drawn: list[Figure]):
    rng = np.random.default_rng(1)
    trials = [
        a_trial("t", name, s, [0.0, top + rng.normal()])
        for name, top in (("sail", 50), ("sail_revkl", 100), ("dpo_online", 50))
        for s in range(8)
    ]
    figures.intervals(compared(trials), Path("x.png"))
    marks = [line for line in drawn[0].axes[1].get_lines() if line.get_label() == "value"]
    assert [mark.get_markerfacecolor() == "white" for mark in marks] == [True, False]


def test_an_unfair_comparison_says_so(drawn: list[Figure]):
    figures.intervals(compared(arms(["sail", "dpo_online"])), Path("x.png"))
    other = [replace(trial, origin={"torch": trial.algorithm}) for trial in arms(["sail", "dpo_online"])]
    figures.intervals(compared(other), Path("x.png"))
    titles = [figure.get_suptitle() for figure in drawn]
    assert ["Not a fair comparison" in title for title in titles] == [False, True]


def test_profiles_are_those_of_the_comparison(drawn: list[Figure]):
    comparison = compared(arms(["sail", "dpo_online"]))
    figures.profiles(comparison, Path("x.png"))
    (panel,) = drawn[0].axes
    for line, arm in zip(lines(panel, "profile"), comparison.evidence.arms, strict=True):
        np.testing.assert_array_equal(line[:, 0], comparison.thresholds)
        np.testing.assert_array_equal(line[:, 1], comparison.profiles[arm.name][:, 0])
    assert [c.get_label() for c in panel.collections] == ["band", "band"]


def test_stability_shows_every_measure_of_every_arm(drawn: list[Figure]):
    trials = arms(["sail", "dpo_online"], ["hopper-v5", "swimmer-v5"])
    trials[0] = replace(trials[0], state="failed")
    comparison = compared(trials)
    figures.stability(comparison, Path("x.png"))
    found = {panel.get_title(): panel for panel in drawn[0].axes if panel.get_title()}
    assert list(found) == [
        "dispersion within a run", "short-term risk", "long-term risk", "final drop from the best",
        "dispersion across runs", "risk across runs", "share of failed runs", "hopper-v5", "swimmer-v5",
    ]  # fmt: skip
    own = [comparison.of(arm.name, "all tasks") for arm in comparison.evidence.arms]
    check_bars(found["long-term risk"], [row.stability["long_term_risk"] for row in own])
    check_bars(found["share of failed runs"], [row.failed for row in own])
    across = [line[0, 0] for line in lines(found["dispersion across runs"], "value")]
    assert across == [row.dispersion_across for row in own]
    assert not lines(found["risk across runs"], "interval")
    # KL(ref || pi) is unknown before training, and 0.01 at the first evaluation.
    (kl, _) = lines(found["hopper-v5"], "mean")
    np.testing.assert_allclose(kl, [[1000 * i, 0.01 * i] for i in range(1, 6)])


def test_stability_goes_without_kl_where_none_was_recorded(drawn: list[Figure]):
    trials = [replace(trial, kl=np.full(6, np.nan)) for trial in arms(["sail"])]
    figures.stability(compared(trials), Path("x.png"))
    assert "hopper-v5" not in {panel.get_title() for panel in drawn[0].axes}


# Before and after


def test_distributions_pool_the_episodes_of_finished_runs(drawn: list[Figure]):
    rng = np.random.default_rng(0)
    trials = [
        replace(trial, before=rng.normal(0, 1, 5), after=rng.normal(50, 9, 5)) for trial in arms(["sail"])
    ]
    trials[3] = replace(trials[3], state="failed")
    figures.before_after(gather(trials), Path("x.png"))
    (panel,) = drawn[0].axes
    before = np.concatenate([trial.before for trial in trials])
    after = np.concatenate([trial.after for trial in trials[:3]])
    for values, quartiles, median in zip(
        (before, after), lines(panel, "quartiles"), lines(panel, "median"), strict=True
    ):
        np.testing.assert_allclose(quartiles[:, 0], np.percentile(values, [25, 75]))
        assert median[0, 0] == np.median(values)
    np.testing.assert_array_equal(lines(panel, "not finished")[0][:, 0], trials[3].after)


@pytest.mark.parametrize("draw", [lambda rng: rng.normal(3, 2, 400), lambda rng: rng.gamma(2, 5, 400)])
def test_a_density_follows_its_values(draw: Callable[[np.random.Generator], np.ndarray]):
    values = draw(np.random.default_rng(0))
    grid, density = distributions._density(values)
    assert density.max() == 1
    kernel = stats.gaussian_kde(values, "silverman")(grid)
    np.testing.assert_allclose(density, kernel / kernel.max(), atol=0.12)


def test_equal_values_have_a_density():
    grid, density = distributions._density(np.full(5, 7.0))
    assert np.isfinite(density).all()
    np.testing.assert_allclose(grid[density.argmax()], 7)


# Two swept settings


def swept_trials(failed: int = 0) -> list[Trial]:
    """gamma x beta with one cell missing; each seed ends at 10 gamma + beta, the best of all at 33."""
    cells = [(0.0, 0.5), (0.0, 3.0), (1.0, 3.0), (3.0, 0.5), (3.0, 3.0)]
    return [
        a_trial(
            task,
            "sail_revkl",
            seed,
            [0.0, 10 * gamma + beta],
            settings={"algo.gamma": gamma, "algo.beta": beta},
            state="failed" if (gamma, beta) == (3.0, 3.0) and seed < failed else "finished",
        )
        for task in ("hopper-v5", "swimmer-v5")
        for gamma, beta in cells
        for seed in range(3)
    ]


def test_a_grid_of_two_numbers_is_found():
    assert swept(gather(swept_trials())) == ("algo.beta", "algo.gamma")
    third = [replace(t, settings={**t.settings, "algo.lr": t.final}) for t in swept_trials()]
    for trials in (arms(["sail", "dpo_online"]), third):
        assert swept(gather(trials)) is None
    diagonal = [
        a_trial("t", "sail", 0, [0.0, 1.0], settings={"algo.gamma": k, "algo.beta": k}) for k in range(5)
    ]
    assert swept(gather(diagonal)) is None
    flags = [
        a_trial("t", "sail", 0, [0.0, 1.0], settings={"algo.gamma": k, "algo.flag": flag})
        for k in (1, 2)
        for flag in (True, False)
    ]
    assert swept(gather(flags)) is None


def test_cells_hold_mean_scores_and_failures(drawn: list[Figure]):
    comparison = compared(swept_trials(failed=1))
    heat_map(comparison, Path("x.png"), "algo.beta", "algo.gamma")
    panels = {panel.get_title(): panel for panel in drawn[0].axes}
    assert list(panels)[:3] == ["all tasks", "hopper-v5", "swimmer-v5"]
    panel = panels["hopper-v5"]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["0.5", "3.0"]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["0.0", "1.0", "3.0"]
    cells = panel.images[0].get_array()
    expected = np.array([[0.5, 3.0], [np.nan, 13.0], [30.5, 33.0 * 2 / 3]]) / 33  # the failed one scores 0
    np.testing.assert_allclose(cells.filled(np.nan), expected)
    words = [text.get_text() for text in panel.texts]
    assert words[:5] == ["0.02", "3 runs", "0.09", "3 runs", "no run"]
    assert words[5:] == ["0.39", "3 runs", "0.92", "3 runs", "0.67", "1/3 failed"]
    assert [type(patch) for patch in panel.patches] == [Rectangle]
    assert "2/6 failed" in [text.get_text() for text in panels["all tasks"].texts]


def test_a_heat_map_is_among_all_figures(drawn: list[Figure]):
    paths = all_figures(compared(swept_trials()), Path("folder"))
    assert paths["heat_map"] == Path("folder/heat_map.png")
    assert list(paths)[-1] == "heat_map"
    assert "algo.beta and algo.gamma" in drawn[-1].get_suptitle()


def test_a_heat_map_needs_settings_that_differ():
    with pytest.raises(UserError, match=r"do not differ in 'algo\.delta'.* algo\.beta, algo\.gamma"):
        heat_map(compared(swept_trials()), Path("x.png"), "algo.beta", "algo.delta")


def test_values_that_are_no_numbers_come_last():
    trials = [
        a_trial("t", "sail", 0, [0.0, 1.0], settings={"algo.radius": r, "algo.lr": lr})
        for r in (None, 100.0, 20.0)
        for lr in (1, 2)
    ]
    assert maps._values(gather(trials), "algo.radius") == [20.0, 100.0, None]


# Any runs: sailctl plot


@pytest.fixture(scope="module")
def shipped() -> Config:
    return compose_jobs(["env=hopper-v5", "algo=sail"]).jobs[0].config


@pytest.fixture
def config(shipped: Config, tmp_path: Path) -> Config:
    return replace(shipped, out=str(tmp_path / "runs"))


def algorithm(config: Config, name: str, **values: float) -> Config:
    return replace(config, algo=replace(config.algo, name=name, **values))


def write_run(config: Config, seed: int, returns: list[float], end: str = "finished") -> RunRecord:
    """A run with one evaluation of two episodes at every 1000 env steps and 10 labels."""
    run = open_run(replace(config, seed=seed), [])
    for i, score in enumerate(returns, 1):
        place = {"iteration": i, "env_steps": 1000 * i, "labels": 10 * i}
        episodes = [{**place, "episode": k, "return": score + (-1) ** k, "length": 100} for k in (0, 1)]
        run.evaluation(episodes)
        run.log({**place, "wall_s": 2.0 * i, "eval_return": score})
    if end == "finished":
        run.finish({})
    elif end == "failed":
        run.fail(RunError("NaN in the loss"))
    elif end == "interrupted":
        run.fail(KeyboardInterrupt())
    return load_run(run.path)


def plotted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """Cells of the table that is printed about everything in ``tmp_path``."""
    plot_runs([tmp_path], tmp_path / "curves.png")
    _, *rows, _ = capsys.readouterr().out.splitlines()
    return [row.split() for row in rows]


@pytest.mark.usefixtures("drawn")
def test_the_table_counts_every_run(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_run(config, 0, [1.0, 10.0, 10.0, 10.0])
    write_run(config, 1, [1.0, 20.0, 20.0, 20.0])
    write_run(config, 2, [1.0, 900.0], "failed")
    write_run(config, 3, [], "failed")
    write_run(config, 4, [1.0], "interrupted")
    write_run(config, 5, [1.0], "running")
    write_run(algorithm(config, "dpo_online"), 0, [5.0, 5.0, 5.0])
    write_run(algorithm(config, "sail_revkl"), 0, [7.0], "failed")
    assert plotted(tmp_path, capsys) == [
        ["hopper-v5", "dpo_online", "1", "1", "0", "0", "5.0"],
        ["hopper-v5", "sail", "6", "2", "2", "2", "15.0", "±", "7.1"],
        ["hopper-v5", "sail_revkl", "1", "0", "1", "0", "-"],
    ]


@pytest.mark.usefixtures("drawn")
def test_runs_of_other_settings_are_other_groups(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for gamma in (0.1, 1.0):
        for seed in (0, 1):
            write_run(algorithm(config, "sail_revkl", gamma=gamma), seed, [1.0])
    write_run(algorithm(config, "sail", gamma=0.0), 0, [1.0])
    first, *others = plotted(tmp_path, capsys)
    assert first[1:3] == ["sail", "1"]
    assert [row[1:4] for row in others] == [
        ["sail_revkl", "algo.gamma=0.1", "2"],
        ["sail_revkl", "algo.gamma=1.0", "2"],
    ]


def test_arms_without_a_common_task_are_drawn(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], drawn: list[Figure]
):
    cheetah = replace(config, env=replace(config.env, id="halfcheetah-v5"))
    write_run(config, 0, [1.0, 2.0])
    write_run(algorithm(cheetah, "dpo_online"), 0, [3.0])
    assert [row[:2] for row in plotted(tmp_path, capsys)] == [
        ["halfcheetah-v5", "dpo_online"],
        ["hopper-v5", "sail"],
    ]
    assert words_of(drawn[0]) == [
        "dpo_online (1 seed, on halfcheetah-v5 only)",
        "sail (1 seed, on hopper-v5 only)",
    ]


def test_curves_are_plotted_whole_whatever_others_spent(
    config: Config, tmp_path: Path, drawn: list[Figure], capsys: pytest.CaptureFixture[str]
):
    write_run(replace(config, env_steps=9000), 0, [1.0] * 9)
    write_run(algorithm(replace(config, env_steps=2000), "dpo_online"), 0, [1.0] * 2)
    plotted(tmp_path, capsys)
    ends = [line[-1, 0] for line in lines(panel_of(drawn[0], "hopper-v5"), "mean")]
    assert sorted(ends) == [2000, 9000]


def test_runs_that_were_never_evaluated_are_counted(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_run(config, 0, [], "running")
    assert plotted(tmp_path, capsys) == [["hopper-v5", "sail", "1", "0", "0", "1", "-"]]


def test_plot_runs_searches_folders_and_says_where_it_is(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    records = [write_run(config, seed, [1.0, 2.0, 3.0]) for seed in (0, 1)]
    out = tmp_path / "curves.png"
    plot_runs([tmp_path / "runs", records[0].path], out)
    head, *table, last = capsys.readouterr().out.splitlines()
    assert head.split()[:6] == ["task", "algorithm", "seeds", "finished", "failed", "unfinished"]
    assert table[-1].split() == ["hopper-v5", "sail", "2", "2", "0", "0", "3.0", "±", "0.0"]
    assert last == f"figure: {out} (and curves.svg)"
    assert out.is_file()


def test_plot_runs_refuses_what_it_cannot_draw(tmp_path: Path, config: Config):
    write_run(config, 0, [1.0])
    with pytest.raises(UserError, match=r"must be a \.png file"):
        plot_runs([tmp_path], tmp_path / "curves.pdf")
    with pytest.raises(UserError, match="no such folder"):
        plot_runs([tmp_path / "nowhere"], tmp_path / "curves.png")
    with pytest.raises(UserError, match="no runs"):
        plot_runs([], tmp_path / "curves.png")
    write_run(replace(config, out=str(tmp_path / "elsewhere")), 0, [1.0])
    with pytest.raises(UserError, match="the same run twice"):
        plot_runs([tmp_path], tmp_path / "curves.png")


def test_a_users_settings_of_matplotlib_change_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trials = arms(["sail"], seeds=3)
    learning_curves(gather(trials), tmp_path / "plain.png")
    theirs = {"figure.dpi": 30, "savefig.facecolor": "red", "font.family": "serif", "text.usetex": True}
    for name, value in theirs.items():
        monkeypatch.setitem(mpl.rcParams, name, value)
    learning_curves(gather(trials), tmp_path / "theirs.png")
    assert (tmp_path / "theirs.png").read_bytes() == (tmp_path / "plain.png").read_bytes()
    assert mpl.rcParams["text.usetex"]  # and they are left as they were
    assert mpl.rcParams["font.family"] == ["serif"]
