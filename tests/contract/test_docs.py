"""The documentation is true: commands work, defaults and columns are those of the code, what is named exists.

The last part shows what the pages derive and no other test does.
"""

from __future__ import annotations

import ast
import math
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import Tensor

import sailctl.analysis.figures
import sailctl.cli.doctor
import sailctl.cli.listing
import sailctl.cli.until
import sailctl.policies.references
import sailctl.sweeps.launch
import sailctl.training.collect
import sailctl.training.evaluate
import sailctl.training.import_policy
import sailctl.training.make_references
from sailctl.algorithms.learner import Learner
from sailctl.cli import comparing
from sailctl.cli import main as cli
from sailctl.config import AlgoConfig, PolicyConfig, read_option, to_dict
from sailctl.core.seeding import named_generators
from sailctl.core.types import EnvSpec, PreferenceData, Preferences, SegmentBatch
from sailctl.data.datasets import from_arrays, save_preferences
from sailctl.data.rollout import forked_pairs
from sailctl.gate.golden import needs_data
from sailctl.objectives import dpo_loss, robust_cost, sail_loss
from sailctl.policies.policy import GaussianPolicy
from sailctl.runs.results import EVALUATION_COLUMNS, load_run
from sailctl.sweeps.compose import compose_jobs
from sailctl.training.train import train

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
ALGORITHMS = sorted(file.stem for file in (ROOT / "conf" / "algo").glob("*.yaml"))

SECTIONS = [
    "Paper",
    "Objective and gradient",
    "Pseudo-code",
    "Options",
    "Metrics",
    "Limits",
    "Differences from the paper",
    "Reproduce",
]
"""Headings of an algorithm's page, in order."""


# Reading Markdown


def page_of(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def headings(text: str, level: int) -> list[str]:
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(rf"^{'#' * level} (.+)$", prose, re.MULTILINE)


def section(text: str, heading: str) -> str:
    """What stands under a second-level heading."""
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def tables(text: str, first_column: str) -> list[list[str]]:
    """Rows of all tables whose first column has this title, as cells."""
    rows, wanted = [], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            wanted = False
        elif cells[0] == first_column:
            wanted = True
        elif wanted and not set(line) <= set("|-: "):
            rows.append(cells)
    return rows


def commands(page: Path) -> list[str]:
    """Command lines of the console blocks, without their prompt."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def code(words: str) -> str:
    """The text inside backticks."""
    match = re.fullmatch(r"`([^`]+)`", words)
    assert match, f"{words!r} should stand in backticks"
    return match[1]


# Pages


def test_every_algorithm_has_a_page_and_the_index_lists_every_page() -> None:
    index = page_of("README")
    assert not [name for name in ALGORITHMS if not (DOCS / f"{name}.md").is_file()]
    listed = re.findall(r"^\| \[\w+\]\((\w+)\.md\) \|", index, re.MULTILINE)
    assert sorted(listed) == sorted({file.stem for file in DOCS.glob("*.md")} - {"README"})


@pytest.mark.parametrize("name", ALGORITHMS)
def test_pages_of_algorithms_have_one_order(name: str) -> None:
    text = page_of(name)
    assert f"(`algo={name}`)" in headings(text, 1)[0]
    assert headings(text, 2) == SECTIONS
    assert re.search(r"https://arxiv\.org/abs/\d{4}\.\d{5}", section(text, "Paper"))
    assert section(text, "Objective and gradient").count("$$") >= 4


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_formulas_are_closed(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("$$") % 2 == 0
    for formula in re.findall(r"\$\$(.+?)\$\$", text, re.DOTALL):
        assert formula.count("{") == formula.count("}"), formula
        sides = [len(re.findall(rf"\\{side}(?![a-z])", formula)) for side in ("left", "right")]
        assert sides[0] == sides[1], formula


# Options


@pytest.mark.parametrize("name", [*ALGORITHMS, "rankings"])
def test_options_exist_and_have_the_default_that_is_stated(name: str, given: Given) -> None:
    chosen = ["algo=sail_segments", "rollout=ranked"] if name == "rankings" else [f"algo={name}"]
    data = [f"algo.data={given.data}"] if required(name) else []
    values = to_dict(compose_jobs([*chosen, *data]).jobs[0].config)
    rows = tables(section(page_of(name), "Options"), "key")
    assert len(rows) >= 5
    for key, default, *_ in rows:
        group, setting = code(key).split(".")
        stated = yaml.safe_load(code(default))
        actual = "???" if data and code(key) == "algo.data" else values[group][setting]
        assert (type(stated), stated) == (type(actual), actual), key


def required(name: str) -> bool:
    """Whether an algorithm must be given a data set."""
    file = ROOT / "conf" / "algo" / f"{name}.yaml"
    return file.is_file() and needs_data(read_option("algo", name, [ROOT / "conf"]))


# Commands


@dataclass(frozen=True)
class Given:
    """What stands for the files that a command line names."""

    data: Path
    """A file of preferences."""
    run: Path
    """A finished run of ``invertedpendulum-v5`` with every column."""
    folder: Path
    """An empty folder."""


TINY = (
    "env=invertedpendulum-v5",
    "rollout.segment_length=5",
    "rollout.label_horizon=5",
    "env_steps=60",
    "evaluation.episodes=1",
    "policy.hidden=[4]",
    "logger.wandb=disabled",
    "logger.progress=false",
)
SMALL = (*TINY, "rollout.prompts=4", "algo.epochs=1", "algo.minibatches=2")
ASKING = (*TINY, "algo.initial_queries=2", "algo.learning_starts=20", "algo.batch=8", "oracle.budget=2")
BASELINES = (
    (*ASKING, "algo=rlhf_ppo", "algo.envs=4", "algo.steps=5"),
    (*ASKING, "algo=sail_mujoco_parity", "algo.pretrain=0", "algo.interval=20", "algo.hidden=[4]"),
)
"""Two of them, which between them have every column that a baseline can have."""
ON_ACTIONS = (
    *ASKING,
    *("algo=sail", "algo.window=5", "algo.envs=4", "algo.warmup=2", "algo.interval=20", "algo.hidden=[4]"),
)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("docs")
    rng = np.random.default_rng(0)
    data = from_arrays(
        "invertedpendulum-v5",
        rng.normal(size=(6, 2, 5, 4)),
        rng.normal(size=(6, 2, 5, 1)),
        rng.choice([-1, 1], 6),
    )
    file = folder / "some.parquet"
    save_preferences(file, data, {})
    words = ["algo=sail_dpr", "algo.w=0.5", "algo.queries=2", "reward.value_horizon=1", f"algo.data={file}"]
    run = small_run(folder / "runs", *words)
    (folder / "empty").mkdir()
    return Given(file, run, folder / "empty")


def small_run(out: Path, *overrides: str) -> Path:
    return run_of(out, *SMALL, *overrides)


def run_of(out: Path, *overrides: str) -> Path:
    (job,) = compose_jobs([*overrides, f"out={out}"]).jobs
    return train(job.config, list(overrides))


OF_RUNS = ("eval", "plot", "compare", "report", "status")
"""Verbs whose words are runs."""


def with_files(words: list[str], given: Given) -> list[str]:
    """A command line in which the files that it names are some that exist, and of many seeds there is one."""
    found = list(words)
    for i, word in enumerate(words):
        key, _, value = word.partition("=")
        if key == "algo.data" and value not in ("null", ""):
            found[i] = f"algo.data={given.data}"
        elif key == "algo.reference" and value != "initial":
            found[i] = f"algo.reference={given.run}"
        elif key == "env.id" and ":" in value:  # the reader's own task
            found[i] = "env.id=InvertedPendulum-v5"
        elif key == "seed":
            found[i] = f"seed={value.removeprefix('range(').split(',')[0]}"
        elif i and words[i - 1] == "--config-dir":
            found[i] = str(given.folder)
        elif words[0] in OF_RUNS and i and not word.startswith("-") and words[i - 1][:2] != "--":
            found[i] = str(given.run)
    return found


COMMANDS = [(name_of(page), line) for page in PAGES for line in commands(page)]


@pytest.mark.parametrize(
    ("page", "line"), [(page, line) for page, line in COMMANDS if line.startswith("sailctl ")]
)
def test_command_lines_are_accepted(
    page: str, line: str, given: Given, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each goes through the real command line, up to the work itself, which is left out."""
    done: list[str] = []

    def work(verb: str) -> Callable[..., int]:
        def note(*_: object) -> int:
            done.append(verb)
            return 0

        return note

    monkeypatch.setattr(sailctl.sweeps.launch, "launch", work("train"))
    monkeypatch.setattr(sailctl.sweeps.launch, "launch_sweep", work("train"))
    monkeypatch.setattr(sailctl.cli.until, "_train_batches", work("train"))
    monkeypatch.setattr(cli, "_show_jobs", work("status"))
    monkeypatch.setattr(comparing, "_print_comparison", work("compare"))
    monkeypatch.setattr(comparing, "_write_page", work("report"))
    monkeypatch.setattr(cli, "_guard", work("regress"))
    monkeypatch.setattr(sailctl.training.collect, "collect", work("collect"))
    monkeypatch.setattr(sailctl.training.evaluate, "evaluate_run", work("eval"))
    monkeypatch.setattr(sailctl.analysis.figures, "plot_runs", work("plot"))
    monkeypatch.setattr(sailctl.policies.references, "table", work("reference"))
    monkeypatch.setattr(sailctl.training.make_references, "make_reference", work("reference"))
    monkeypatch.setattr(sailctl.training.import_policy, "keep_imported", work("reference"))
    monkeypatch.setattr(sailctl.cli.listing, "print_tasks", work("tasks"))
    monkeypatch.setattr(sailctl.cli.listing, "print_task", work("tasks"))
    monkeypatch.setattr(sailctl.cli.doctor, "diagnose", work("doctor"))
    _, verb, *rest = shlex.split(line, comments=True)
    code = cli.main(with_files([verb, *rest], given))
    assert code == 0, f"{page}: {line}\n{capsys.readouterr().err}"
    assert done == [verb] or "--cfg" in rest or {"-h", "--help"} & set(rest)


def test_there_are_commands_to_check() -> None:
    """Every algorithm's page trains it, and sweeps it."""
    for name in ALGORITHMS:
        own = [line for page, line in COMMANDS if page == f"docs/{name}.md" and f"algo={name}" in line]
        assert [line for line in own if line.startswith("sailctl train algo=")]
        assert [line for line in own if line.startswith("sailctl train -m ")]


def test_modules_that_are_named_exist() -> None:
    named = {
        module
        for page in PAGES
        for module in re.findall(r"python -m ([\w.]+)", page.read_text(encoding="utf-8"))
        if module.split(".")[0] == "benchmarks"
    }
    assert "benchmarks.theory.gradient" in named
    for name in named:
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), name


def test_results_that_are_named_are_written_by_a_benchmark() -> None:
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "benchmarks").rglob("*.py"))
    committed = {file.stem for file in (ROOT / "results").iterdir()}
    named = {
        stem
        for page in PAGES
        for stem in re.findall(r"results/(\w+)\.(?:csv|json|png)", page.read_text(encoding="utf-8"))
    }
    assert "theory_gradient" in named
    assert not [stem for stem in sorted(named) if f'"{stem}"' not in source and stem not in committed]


# Links and tests


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        file = (page.parent / place).resolve() if place else page
        assert file.exists(), target
        if anchor:
            there = file.read_text(encoding="utf-8")
            assert anchor in {slug(title) for level in (1, 2, 3) for title in headings(there, level)}, target


def functions_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tests_that_are_named_exist(page: Path) -> None:
    files = [file for folder in ("tests", "benchmarks") for file in (ROOT / folder).rglob("test_*.py")]
    everything = {file: functions_of(file) for file in files}
    names = set().union(*everything.values()) | {file.stem for file in everything}
    text = page.read_text(encoding="utf-8")
    for place, function in re.findall(r"((?:\w+/)*tests/[\w/]+\.py)(?:::(\w+))?", text):
        assert (ROOT / place).is_file(), place
        assert not function or function in everything[ROOT / place], f"{place}::{function}"
    for name in re.findall(r"\btest_\w+", text):  # one that ends in an underscore stands for a family
        assert name in names or (name.endswith("_") and any(each.startswith(name) for each in names)), name


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_page_names_tests_for_its_claims(name: str) -> None:
    rows = tables(section(page_of(name), "Reproduce"), "claim")
    assert len(rows) >= 4
    assert all("::test_" in test for _, test in rows)


# Columns


def documented(heading: str) -> list[str]:
    return [code(row[0]) for row in tables(section(page_of("metrics"), heading), "column")]


def test_every_column_of_a_run_is_documented_and_no_other(given: Given, tmp_path: Path) -> None:
    everything, plain = (
        set(load_run(run).metrics) for run in (given.run, small_run(tmp_path, "algo=sail_segments"))
    )
    assert plain < everything, "the run that the table is compared with has every column of its kind"
    for words in (*BASELINES, ON_ACTIONS):
        everything |= set(load_run(run_of(tmp_path, *words)).metrics)
    columns = documented("metrics.csv")
    assert len(columns) == len(set(columns))
    assert set(columns) == everything


def test_every_column_of_evaluations_is_documented_and_no_other(given: Given) -> None:
    assert documented("evaluations.csv") == list(EVALUATION_COLUMNS)
    assert list(pd.read_csv(given.run / "evaluations.csv")) == list(EVALUATION_COLUMNS)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_pages_explain_columns_that_exist(name: str) -> None:
    explained = [code(row[0]) for row in tables(section(page_of(name), "Metrics"), "column")]
    assert "eval_return" in explained
    assert set(explained) <= set(documented("metrics.csv"))


# What the pages derive

SPEC = EnvSpec("toy-v0", 4, 2, -np.ones(2), np.ones(2), 100, 0.1)
PROMPTS, STEPS = 8, 5


def toy_segments(seed: int) -> SegmentBatch:
    rng = np.random.default_rng(seed)
    obs, actions = (
        rng.normal(0, 0.7, (2 * PROMPTS, STEPS, size)).astype(np.float32)
        for size in (SPEC.obs_dim, SPEC.act_dim)
    )
    return SegmentBatch(obs, actions, np.ones((2 * PROMPTS, STEPS), np.float32), 2)


def toy_answers(seed: int) -> Preferences:
    labels = np.random.default_rng(seed).choice([-1.0, 1.0], PROMPTS)
    return Preferences(forked_pairs(PROMPTS, 2), labels.astype(np.float32))


def plain(algo: str, *overrides: str) -> AlgoConfig:
    """A shipped algorithm that makes one SGD step on the whole batch."""
    words = [f"algo={algo}", "algo.epochs=1", "algo.minibatches=1", "algo.optimiser=sgd", "algo.lr=0.1"]
    data = [f"algo.data={__file__}"] if required(algo) else []  # composing looks whether there is a file
    return compose_jobs([*words, "algo.max_grad_norm=null", *overrides, *data]).jobs[0].config.algo


def one_step(config: AlgoConfig, seed: int = 0) -> Tensor:
    """How far it takes the parameters of a new policy, the reference being that policy."""
    data = PreferenceData(SPEC.id, toy_segments(3), toy_answers(4), STEPS) if config.needs_data else None
    policy = GaussianPolicy(PolicyConfig("mlp", [6], 0, 0.5, True, True), SPEC, np.random.default_rng(1))
    learner = Learner(policy, policy.snapshot(), config, named_generators(seed), data, PROMPTS)
    before = torch.nn.utils.parameters_to_vector(policy.parameters()).detach().clone()
    learner.update(*((toy_segments(1), toy_answers(2)) if config.responses == "segments" else ()))
    return torch.nn.utils.parameters_to_vector(policy.parameters()).detach() - before


@pytest.mark.parametrize("algo", ["sail_segments", "sail_revkl_segments", "sail_robust_segments"])
def test_the_first_step_after_a_snapshot_is_that_of_online_dpo(algo: str) -> None:
    """h is 0 there and every F log 1/2: T2 with its baseline, the KL and the cost have no gradient."""
    online = one_step(plain("dpo_online_segments"))
    assert float(online.norm()) > 1e-2
    torch.testing.assert_close(one_step(plain(algo)), online, rtol=1e-5, atol=1e-6)
    without = one_step(plain(algo, "algo.baseline=none"))
    assert float((without - online).norm()) > 1e-2, "the baseline is what cancels T2"


@pytest.mark.parametrize("algo", ["sail_ddp", "sail_dpp"])
def test_at_the_reference_own_labels_move_nothing_in_the_mean(algo: str) -> None:
    """Each step is noise: over many draws of the labels it averages out."""
    config = plain(algo, "algo.w=1")
    steps = torch.stack([one_step(config, seed) for seed in range(64)])
    noise = float(steps.var(dim=0).sum() / len(steps)) ** 0.5
    assert float(steps[0].norm()) > 4 * noise, "a single step is no small one"
    assert float(steps.mean(dim=0).norm()) < 2 * noise


@pytest.mark.parametrize("rho", [0.0, 0.1, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("better", [0.5, 0.6, 0.85])
def test_a_pair_is_worth_the_score_of_its_probability_less_rho(better: float, rho: float) -> None:
    h = torch.linspace(-8, 8, 16_001, dtype=torch.float64)
    right, wrong = -dpo_loss(h, torch.ones_like(h)), -dpo_loss(h, -torch.ones_like(h))
    best = float(h[(better * right + (1 - better) * wrong - robust_cost(h, rho)).argmax()])
    worth = max(0.5, better - rho)
    assert best == pytest.approx(math.log(worth / (1 - worth)), abs=2e-3)


@pytest.mark.parametrize(("w", "c", "runs_away"), [(0.4, 0.2, False), (0.5, 0.95, False), (0.5, 1.05, True)])
def test_undecided_pairs_take_sides_when_cw_is_above_one_minus_w(w: float, c: float, runs_away: bool) -> None:
    """The expected step of DDP on a pair whose recorded labels are balanced, close to h = 0."""
    logp = torch.tensor([1e-3], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros_like(logp.detach())
    expected = torch.zeros((), dtype=torch.float64)
    for label, weight in ((1.0, float(logp.detach().sigmoid())), (-1.0, float((-logp.detach()).sigmoid()))):
        z = torch.full_like(zero, label)
        scored = (logp, zero, zero, zero, z)
        own, _ = sail_loss(*scored, beta=1.0, c=c, group=None, responses=False, policy_labels=True)
        recorded, _ = sail_loss(*scored, beta=1.0, c=c, group=None, responses=False)
        expected = expected + w * weight * own.sum() + (1 - w) * 0.5 * recorded.sum()
    (gradient,) = torch.autograd.grad(expected, logp)
    assert (-gradient.item() > 0) == runs_away
    assert -gradient.item() == pytest.approx((c * w - (1 - w)) / 4 * 1e-3, rel=1e-4)


def test_where_pairs_are_skipped_the_baseline_gives_the_gradient_of_the_mean_over_the_answered() -> None:
    """Every batch of two pairs from a softmax over three responses; that of the poorest twice is skipped."""
    theta = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    logp, ref = theta.log_softmax(0), torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log()
    pairs = [(i, j) for i, j in product(range(3), repeat=2) if max(i, j) > 0]  # response 0 earns too little
    first, second = (torch.tensor(side) for side in zip(*pairs, strict=True))
    label = torch.sign(first - second).double()  # a later response is better
    scored = (logp[first], logp[second], ref[first], ref[second], label)
    chance = (logp[first] + logp[second]).exp()
    value = -sail_loss(*scored, beta=1.0, c=0.0, group=None)[0]
    (truth,) = torch.autograd.grad((chance * value).sum() / chance.sum(), theta, retain_graph=True)

    weight = (chance / chance.sum()).detach()
    estimates = {}
    for group in (None, torch.tensor([0, 1])):
        total = torch.zeros((), dtype=torch.float64)
        for a, b in product(range(len(pairs)), repeat=2):
            batch = (side[[a, b]] for side in scored)
            losses, _ = sail_loss(*batch, beta=1.0, c=1.0, group=group)
            total = total - weight[a] * weight[b] * losses.mean()
        (estimates[group is None],) = torch.autograd.grad(total, theta, retain_graph=True)
    torch.testing.assert_close(estimates[False], truth, rtol=1e-12, atol=1e-12)
    assert float((estimates[True] - truth).norm()) > 0.1 * float(truth.norm())
