"""Learning curves and their table: the right numbers, and every run accounted for."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest

from sailctl import figures
from sailctl.compose import compose_jobs
from sailctl.config import Config
from sailctl.figures import (
    Curve,
    final_score,
    group_runs,
    learning_curves,
    mean_curve,
    plot_runs,
    summary_table,
)
from sailctl.results import RunRecord, create_run, load_run
from sailctl.types import RunError, UserError


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
    run = create_run(replace(config, seed=seed), [])
    for i, score in enumerate(returns, 1):
        place = {"iteration": i, "env_steps": 1000 * i, "labels": 10 * i}
        episodes = [{**place, "episode": k, "return": score + (-1) ** k, "length": 100} for k in (0, 1)]
        run.evaluation(episodes)
        run.log({**place, "eval_return": score})
    if end == "finished":
        run.finish({})
    elif end == "failed":
        run.fail(RunError("NaN in the loss"))
    elif end == "interrupted":
        run.fail(KeyboardInterrupt())
    return load_run(run.path)


def test_the_final_score_is_the_mean_of_the_last_three_evaluations(config: Config):
    assert final_score(write_run(config, 0, [900.0, 10.0, 20.0, 60.0])) == 30.0
    assert final_score(write_run(config, 1, [10.0, 20.0])) == 15.0
    with pytest.raises(ValueError, match="never evaluated"):
        final_score(write_run(config, 2, []))


def test_the_table_counts_every_run(config: Config):
    records = [
        write_run(config, 0, [1.0, 10.0, 10.0, 10.0]),
        write_run(config, 1, [1.0, 20.0, 20.0, 20.0]),
        write_run(config, 2, [1.0, 900.0], "failed"),
        write_run(config, 3, [], "failed"),
        write_run(config, 4, [1.0], "interrupted"),
        write_run(config, 5, [1.0], "running"),
        write_run(algorithm(config, "dpo_online"), 0, [5.0, 5.0, 5.0]),
        write_run(algorithm(config, "sail_revkl"), 0, [7.0], "failed"),
    ]
    head, *lines = summary_table(records).splitlines()
    assert head.split()[:6] == ["task", "algorithm", "seeds", "finished", "failed", "unfinished"]
    assert [line.split() for line in lines] == [
        ["hopper-v5", "dpo_online", "1", "1", "0", "0", "5.0"],
        ["hopper-v5", "sail", "6", "2", "2", "2", "15.0", "±", "7.1"],
        ["hopper-v5", "sail_revkl", "1", "0", "1", "0", "-"],
    ]


def test_runs_of_other_settings_are_other_groups(config: Config):
    weak, strong = (algorithm(config, "sail_revkl", gamma=gamma) for gamma in (0.1, 1.0))
    records = [write_run(c, seed, [1.0]) for c in (weak, strong) for seed in (0, 1)]
    records += [write_run(algorithm(config, "sail", gamma=0.0), 0, [1.0])]
    groups = group_runs(records)
    assert [(group.name, [r.seed for r in group.records]) for group in groups] == [
        ("sail", [0]),
        ("sail_revkl algo.gamma=0.1", [0, 1]),
        ("sail_revkl algo.gamma=1.0", [0, 1]),
    ]


def test_where_and_how_a_run_was_made_sets_nothing_apart(config: Config, tmp_path: Path):
    other = replace(config, out=str(tmp_path / "elsewhere"), threads=2)
    records = [write_run(config, 0, [1.0]), write_run(other, 1, [1.0])]
    assert len(group_runs(records)) == 1
    with pytest.raises(UserError, match="the same run twice"):
        group_runs([*records, write_run(other, 0, [1.0])])
    with pytest.raises(UserError, match="no runs"):
        group_runs([])


def test_the_mean_is_taken_where_every_run_has_been(monkeypatch: pytest.MonkeyPatch):
    def line(steps: list[float], slope: float) -> Curve:
        x = np.array(steps)
        return Curve(x, x / 100, x / 1000, slope * x)

    mean, interval = mean_curve([line([100, 200, 300], 1.0), line([150, 250, 400], 3.0)])
    assert mean.env_steps.tolist() == [150, 200, 250, 300]
    np.testing.assert_allclose(mean.returns, 2 * mean.env_steps)
    np.testing.assert_allclose(mean.labels, mean.env_steps / 100)
    # Of two runs, a resample is one of them twice in half of the draws: the interval spans both.
    np.testing.assert_allclose(interval, np.outer(mean.env_steps, [1.0, 3.0]))
    monkeypatch.setattr(report, "BOOTSTRAPS", 20_000)
    scores = np.random.default_rng(1).normal(size=50)
    _, interval = mean_curve([Curve(np.ones(1), np.ones(1), np.ones(1), np.array([s])) for s in scores])
    half = 1.96 * scores.std() / math.sqrt(50)
    np.testing.assert_allclose(interval[0], scores.mean() + np.array([-half, half]), atol=0.05 * half + 0.01)


def test_looks_are_fixed_and_apart():
    known = [figures.look_of(name) for name in ("sail", "sail_revkl", "dpo_online")]
    new = figures.look_of("something_new")
    for part in (0, 1):
        assert len({look[part] for look in known}) == 3
        assert new[part] not in {look[part] for look in known}
    assert figures.look_of("something_new") == new


def seeds_of(config: Config, name: str, top: float, ends: list[str]) -> list[RunRecord]:
    """Runs that rise towards ``top``; one that did not finish stops half way."""
    records = []
    for seed, end in enumerate(ends):
        rng = np.random.default_rng([seed, int(top)])
        x = np.arange(1, 21 if end == "finished" else 9)
        returns = top * (1 - np.exp(-x / 6)) * rng.uniform(0.7, 1.2) + 0.05 * top * rng.standard_normal(
            len(x)
        )
        records.append(write_run(algorithm(config, name), seed, returns.tolist(), end))
    return records


def test_a_figure_shows_every_group(config: Config, tmp_path: Path):
    cheetah = replace(config, env=replace(config.env, id="halfcheetah-v5"))
    finished = ["finished"] * 4
    records = [
        *seeds_of(config, "sail", 900, finished),
        *seeds_of(config, "sail_revkl", 1300, [*finished, "failed"]),
        *seeds_of(cheetah, "sail", 1900, ["finished", "finished"]),
        *seeds_of(cheetah, "sail_revkl", 2400, ["failed", "running"]),
        *seeds_of(cheetah, "dpo_online", 1500, ["finished"]),
        write_run(algorithm(cheetah, "sail"), 9, [], "failed"),
    ]
    path = tmp_path / "figures" / "curves.png"
    learning_curves(records, path)
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[:2] == (1080, 1440)
    assert pixels[..., :3].std() > 0.1
    svg = path.with_suffix(".svg").read_text()
    words = [node.text for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")]
    for expected in (
        "hopper-v5",
        "halfcheetah-v5",
        "env steps",
        "labels used",
        "true return",
        "sail (4 seeds, 95% interval)",
        "sail_revkl (5 seeds, 1 not finished, 95% interval)",
        "sail (3 seeds, 1 not finished)",
        "sail_revkl (2 seeds, 2 not finished)",
        "dpo_online (1 seed)",
    ):
        assert expected in words
    learning_curves(records, path)
    assert path.with_suffix(".svg").read_text() == svg


def test_plot_runs_searches_folders_and_says_where_it_is(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    records = [write_run(config, seed, [1.0, 2.0, 3.0]) for seed in (0, 1)]
    out = tmp_path / "curves.png"
    plot_runs([tmp_path / "runs", records[0].path], out)
    *table, last = capsys.readouterr().out.splitlines()
    assert table[-1].split() == ["hopper-v5", "sail", "2", "2", "0", "0", "2.0", "±", "0.0"]
    assert last == f"figure: {out} (and curves.svg)"
    assert out.is_file()


def test_plot_runs_refuses_what_it_cannot_draw(tmp_path: Path, config: Config):
    write_run(config, 0, [1.0])
    with pytest.raises(UserError, match=r"must be a \.png file"):
        plot_runs([tmp_path], tmp_path / "curves.pdf")
    with pytest.raises(UserError, match="no such folder"):
        plot_runs([tmp_path / "nowhere"], tmp_path / "curves.png")
