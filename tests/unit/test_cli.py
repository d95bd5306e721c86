"""The command itself, run as a user runs it: exit codes, one line per error, nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sailctl import __version__
from sailctl.analysis.trials import save_trials
from sailctl.cli.main import main
from tests.trials import make_trial


def sailctl(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sailctl", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "algo.gama=1"], "unknown key 'algo.gama'; did you mean 'algo.gamma'?"),
        (["train", "algo.beta=-1"], "algo.beta must be above 0, got -1.0"),
        (["train", "-m", "algo=sail,sial", "seed=0,1"], "unknown algo 'sial'; did you mean 'sail'?"),
        (
            ["train", "algo=sail_segments", "rollout.segment_length=5000"],
            "rollout.segment_length must be from 1 to 1000",
        ),
        (["train", "--seed=3"], "unrecognized arguments: --seed=3 (see sailctl train --help)"),
        (["train", "--cfg", "job", "-m", "seed=0,1"], "--cfg job shows one configuration; leave out -m"),
        (["eval", "nowhere"], "'nowhere' is not a run directory"),
        (["plot", "nowhere"], "no such folder: nowhere"),
        (["compare", "nowhere"], "no such folder: nowhere"),
        (["compare", "nowhere.csv"], "no such file: nowhere.csv"),
        (["compare", "x", "--save=x.txt"], "--save must name a .csv file, got 'x.txt'"),
        (["compare", "x", "--resamples=9"], "--resamples must be at least 100, got 9"),
        (["compare", "x", "--threshold=nan"], "--threshold must be a number, got nan"),
        (["compare", "x", "--scale=no.yaml"], "cannot read the scale no.yaml"),
        (["report"], "the following arguments are required: RUNS (see sailctl report --help)"),
        (["report", "x", "--wandb=maybe"], "argument --wandb: invalid choice: 'maybe'"),
        (["regress", "nowhere"], "no baseline in nowhere"),
        (["regress"], "no baseline in results/baselines"),
        (["regress", "algo=sail"], "algo=sail belongs to a new protocol: add --new NAME"),
        (["regress", "--new=x", "algo=sail"], "--new needs --update REASON"),
        (["regress", "--jobs=0"], "--jobs must be at least 1, got 0"),
        (["regress", "--update=why", "--new=x", "--alpha=2"], "--alpha must be between 0 and 1, got 2.0"),
        (["trian"], "unknown verb 'trian'; the verbs are train, status, eval, plot"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = sailctl(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"sailctl: {message}")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_help_and_version_import_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom sailctl.cli.main import main\n"
        "code = main(['--help']) + main(['--version'])\n"
        "heavy = {'numpy', 'hydra', 'omegaconf', 'torch', 'mujoco', 'wandb', 'matplotlib', 'pandas'}\n"
        "sys.exit(f'imported {heavy & set(sys.modules)}' if heavy & set(sys.modules) else code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: sailctl VERB")
    assert done.stdout.endswith(f"sailctl {__version__}\n")


def test_every_verb_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("train", "eval", "plot", "compare", "report", "regress", "collect"):
        with pytest.raises(SystemExit) as stopped:
            main([verb, "--help"])
        assert stopped.value.code == 0
        assert f"usage: sailctl {verb}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "dpo_offline, dpo_online, dpo_online_segments, pebble, ppo" in capsys.readouterr().out


def test_cfg_job_shows_the_configuration_and_runs_nothing(tmp_path: Path) -> None:
    done = sailctl("train", "--cfg", "job", "algo=sail_segments", "algo.gamma=0.25", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    assert (
        "  gamma: 0.25              # weight of the KL penalty per visited state; 0 is no penalty\n"
        in done.stdout
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--episodes", "0"], "--episodes must be at least 1, got 0"),
        (["--episodes", "many"], "argument --episodes: invalid int value: 'many' (see sailctl eval --help)"),
        (["--seed", "-1"], "--seed must be 0 or more, got -1"),
        (["--video", "film.gif"], "--video must name an .mp4 file, got 'film.gif'"),
    ],
)
def test_eval_checks_its_options(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("config.yaml", "metrics.csv"):
        (tmp_path / name).touch()
    assert main(["eval", str(tmp_path), *arguments]) == 2
    assert capsys.readouterr().err == f"sailctl: {message}\n"


# Trainings below are replaced by ones of a moment. Launchers run jobs in other processes, so the replacement
# wraps the function that they call; everything else is the product's own code.
CHILD = """
import os, sys, time
from pathlib import Path
from types import SimpleNamespace

from sailctl.cli import main as cli
from sailctl.sweeps import launch

real_run_job = launch.run_job

def train(config, overrides):
    from sailctl.core.types import BusyError, RunError, UserError
    if config.seed == 8:
        raise BusyError("process 1 on another machine works on it")
    if config.seed == 1:
        raise UserError("this run exists already")
    if config.seed == 2:
        raise RunError("not a number in an update")
    if config.seed == 3:
        raise KeyError("a bug")
    if config.seed == 4:
        os._exit(7)
    if config.seed == 9:
        time.sleep(3)
    if config.seed == 10:
        sys.exit(3)
    if config.seed == 5:
        Path("started").touch()
        time.sleep(60)
    run = Path(config.out) / config.algo.name / f"s{config.seed}"
    run.mkdir(parents=True)
    (run / "words").write_text(" ".join(overrides))
    (run / "threads").write_text(os.environ["OMP_NUM_THREADS"])
    return run

def run_job(cfg):
    sys.modules["sailctl.training.train"] = SimpleNamespace(train=train)
    real_run_job(cfg)

launch.run_job = run_job
if __name__ == "__main__":
    sys.exit(cli.main())
"""


@pytest.mark.parametrize(("word", "mode"), [("true", "disabled"), ("false", "offline")])
def test_wandbs_older_word_turns_it_off(word: str, mode: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, "-m", "sailctl", "train", "--cfg", "job"],
        cwd=tmp_path,
        env={**environment, "WANDB_DISABLED": word},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"  wandb: {mode} " in done.stdout


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, 1), (errno.EROFS, 1), (errno.ENAMETOOLONG, 2), (errno.ENOTDIR, 2)]
)
def test_a_file_that_cannot_be_written_is_one_line(
    number: int,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number), "jobs.json")

    monkeypatch.setattr("sailctl.sweeps.launch.record_launch", refuse)
    assert main(["train", "-m", "algo=sail", f"out={tmp_path}"]) == code
    assert capsys.readouterr().err == f"sailctl: cannot use jobs.json: {os.strerror(number)}\n"


def test_a_name_that_is_too_long_is_refused_before_anything(tmp_path: Path) -> None:
    done = sailctl("train", "algo=sail", f"out={'x' * 300}", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.endswith(": File name too long\n")
    assert not list(tmp_path.iterdir())


def test_a_tilde_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for arguments in (["status", "~/empty"], ["plot", "~/empty", "--out=~/x.png"], ["compare", "~/empty"]):
        assert main(arguments) == 2
        assert capsys.readouterr().err == f"sailctl: no run in {tmp_path}/empty or below it\n"
    assert main(["status", "~who-is-not-here/runs"]) == 2
    assert "names an unknown home folder" in capsys.readouterr().err


def test_simulating_needs_no_opengl() -> None:
    """With a MUJOCO_GL that does not work here, MuJoCo cannot be imported; only videos need it to."""
    environment = os.environ | {"MUJOCO_GL": "no-such-platform"}
    words = [sys.executable, "-m", "sailctl", "tasks", "hopper-v5"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def child(tmp_path: Path) -> list[str]:
    """Command that trains with the replacement; run it in ``tmp_path / 'work'``."""
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "work").mkdir()
    return [sys.executable, str(tmp_path / "child.py")]


def run(command: list[str], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    return subprocess.run(
        [*command, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def files_in(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_a_single_run_prints_its_directory_and_hydra_leaves_nothing(child: list[str], tmp_path: Path) -> None:
    work = tmp_path / "work"
    done = run(child, "train", "algo=sail", "seed=7", cwd=work)
    assert (done.returncode, done.stdout, done.stderr) == (0, "runs/sail/s7\n", "")
    assert files_in(work) == {"runs/sail/s7/words", "runs/sail/s7/threads"}
    assert (work / "runs/sail/s7/words").read_text() == "algo=sail seed=7"
    assert (work / "runs/sail/s7/threads").read_text() == "1"


@pytest.mark.parametrize(
    ("seed", "code", "last_line"),
    [
        (1, 2, "sailctl: this run exists already"),
        (2, 1, "sailctl: not a number in an update"),
        (3, 1, "sailctl: unexpected KeyError: 'a bug' (traceback above)"),
    ],
)
def test_a_single_run_that_fails(
    seed: int, code: int, last_line: str, child: list[str], tmp_path: Path
) -> None:
    done = run(child, "train", f"seed={seed}", cwd=tmp_path / "work")
    assert done.returncode == code
    *above, last = done.stderr.splitlines()
    assert last == last_line
    assert ("KeyError: 'a bug'" in above) if seed == 3 else not above
    assert files_in(tmp_path / "work") == set()


@pytest.mark.parametrize("launcher", ["joblib", "basic"])
def test_a_sweep_goes_on_past_failures_and_lists_every_job(
    launcher: str, child: list[str], tmp_path: Path
) -> None:
    work = tmp_path / "work"
    arguments = ["train", "-m", "algo=sail,sail_revkl", "seed=0,1,2,3", f"hydra/launcher={launcher}"]
    done = run(child, *arguments, cwd=work)
    assert done.returncode == 1
    for algo in ("sail", "sail_revkl"):
        assert f"sailctl: algo={algo} seed=1: this run exists already\n" in done.stderr
        assert f"sailctl: algo={algo} seed=2: not a number in an update\n" in done.stderr
        assert f"sailctl: algo={algo} seed=3: unexpected KeyError: 'a bug' (traceback above)\n" in done.stderr
        assert (work / f"runs/{algo}/s0/words").read_text() == f"algo={algo} seed=0"
        assert (work / f"runs/{algo}/s0/threads").read_text() == "1"
    assert done.stderr.count("\nKeyError: 'a bug'\n") == 2  # the tracebacks

    ended, table = done.stdout.split("\n\n")
    assert sorted(ended.splitlines()) == ["algo=sail seed=0: done", "algo=sail_revkl seed=0: done"]
    title, header, *rows = table.strip().splitlines()
    assert title.startswith("8 jobs: 2 done, 2 refused, 4 failed (runs/.sweeps/")
    assert header.split() == ["overrides", "state", "run", "directory", "or", "error"]
    assert [row.split(maxsplit=3) for row in rows] == [
        [f"algo={algo}", f"seed={seed}", state, detail.format(algo=algo)]
        for algo in ("sail", "sail_revkl")
        for seed, (state, detail) in enumerate(
            [
                ("done", "runs/{algo}/s0"),
                ("refused", "this run exists already"),
                ("failed", "not a number in an update"),
                ("failed", "KeyError: 'a bug'"),
            ]
        )
    ]
    (sweep,) = (work / "runs/.sweeps").iterdir()
    outcomes = {f"{number}.json" for number in range(8)}
    assert files_in(sweep) == {"multirun.yaml", "jobs.json", *outcomes}
    assert json.loads((sweep / "0.json").read_text())["overrides"] == ["algo=sail", "seed=0"]
    assert {path.name for path in work.iterdir()} == {"runs"}


@pytest.mark.parametrize("launcher", ["joblib", "basic"])
def test_paths_are_those_of_the_folder_it_was_asked_in(
    launcher: str, child: list[str], tmp_path: Path
) -> None:
    work = tmp_path / "work"
    words = ["seed=0,6", f"hydra/launcher={launcher}", "hydra.job.chdir=true", "out=mine"]
    words.append("hydra.sweep.subdir=${hydra.job.num}")
    done = run(child, "train", "-m", *words, cwd=work)
    assert done.returncode == 0, done.stderr
    assert [(work / f"mine/sail_revkl/s{seed}/words").exists() for seed in (0, 6)] == [True, True]


@pytest.mark.parametrize("launcher", ["joblib", "basic"])
def test_fail_fast_begins_no_job_after_a_failure(launcher: str, child: list[str], tmp_path: Path) -> None:
    work = tmp_path / "work"
    words = ["seed=1,2,0", f"hydra/launcher={launcher}"]
    words += ["hydra.launcher.n_jobs=1"] if launcher == "joblib" else []
    done = run(child, "train", "-m", "--fail-fast", *words, cwd=work)
    assert done.returncode == 1, done.stderr
    assert "3 jobs: 1 refused, 1 failed, 1 skipped (" in done.stdout
    assert not (work / "runs/sail_revkl/s0").exists()
    again = run(child, "train", "-m", *words, cwd=work)
    assert "3 jobs: 1 refused, 1 failed, 1 done (" in again.stdout
    assert (work / "runs/sail_revkl/s0").exists()


def test_a_job_that_another_process_works_on_is_no_failure(child: list[str], tmp_path: Path) -> None:
    done = run(child, "train", "-m", "seed=8,0", "hydra/launcher=basic", cwd=tmp_path / "work")
    assert done.returncode == 0, done.stderr
    assert "2 jobs: 1 busy, 1 done (" in done.stdout
    alone = run(child, "train", "seed=8", cwd=tmp_path / "work")
    assert (alone.returncode, alone.stderr) == (2, "sailctl: process 1 on another machine works on it\n")


def test_fail_fast_is_about_sweeps(child: list[str], tmp_path: Path) -> None:
    done = run(child, "train", "--fail-fast", cwd=tmp_path / "work")
    assert (done.returncode, done.stderr) == (
        2,
        "sailctl: --fail-fast applies to the jobs of a sweep: add -m\n",
    )


def test_sweeps_keep_their_own_folders_and_only_refusals_exit_with_2(
    child: list[str], tmp_path: Path
) -> None:
    work = tmp_path / "work"
    for seeds, code in (("0,6", 0), ("1,7", 2)):
        done = run(child, "train", "-m", f"seed={seeds}", "hydra/launcher=basic", "out=else where", cwd=work)
        assert done.returncode == code, done.stderr
    assert len(list((work / "else where" / ".sweeps").iterdir())) == 2
    assert not (work / "runs").exists()


def test_a_users_folder_reaches_the_jobs_of_a_launcher(child: list[str], tmp_path: Path) -> None:
    mine = tmp_path / "it's mine"
    (mine / "algo").mkdir(parents=True)
    (mine / "algo" / "mine.yaml").write_text("defaults:\n  - sail\nname: mine\n")
    arguments = ["train", "-m", "--config-dir", str(mine), "algo=mine,sail", "experiment=demo"]
    done = run(child, *arguments, cwd=tmp_path / "work")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "work/runs/mine/s0/words").read_text() == "algo=mine experiment=demo"


def test_a_worker_that_dies_is_a_failed_job_and_the_others_go_on(child: list[str], tmp_path: Path) -> None:
    done = run(child, "train", "-m", "seed=9,4,0,6,7", "hydra.launcher.n_jobs=2", cwd=tmp_path / "work")
    assert done.returncode == 1
    assert "5 jobs: 4 done, 1 failed (" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "sailctl: seed=4: its process died without an error message: TerminatedWorkerError: "
    )


@pytest.mark.parametrize("launcher", ["joblib", "basic"])
def test_a_job_that_ends_its_process_is_a_failed_job_and_the_others_go_on(
    launcher: str, child: list[str], tmp_path: Path
) -> None:
    words = ["seed=10,0,6", f"hydra/launcher={launcher}"]
    done = run(child, "train", "-m", *words, cwd=tmp_path / "work")
    assert done.returncode == 1
    assert "3 jobs: 1 failed, 2 done (" in done.stdout
    assert done.stderr == ("sailctl: seed=10: code called by the run exited the process (exit code 3)\n")


@pytest.mark.parametrize("launcher", [None, "joblib", "basic"])
def test_an_interrupt_is_one_line_and_exit_code_130(
    launcher: str | None, child: list[str], tmp_path: Path
) -> None:
    work = tmp_path / "work"
    arguments = (
        ["train", "seed=5"] if launcher is None else ["train", "-m", "seed=5,0", f"hydra/launcher={launcher}"]
    )
    with subprocess.Popen(
        [*child, *arguments],
        cwd=work,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Tests in the background of a script inherit an ignored SIGINT, which a terminal's command does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 60
        # A worker of joblib that is interrupted while Python itself starts in it speaks up in its own way; so
        # the other worker has ended its job before.
        others = [work / "runs/.sweeps"] if launcher == "joblib" else []
        while time.monotonic() < deadline:
            if (work / "started").exists() and all(list(place.glob("*/1.json")) for place in others):
                break
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the launcher's processes too
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    if launcher is None:
        assert errors == "sailctl: interrupted\n"
        return
    told, last = errors.splitlines()
    assert re.fullmatch(
        "sailctl: seed=5: stopped by SIG(INT|TERM); run the same command again to resume", told
    )
    assert last == "sailctl: interrupted, stopped by SIGINT"
    (launch,) = (work / "runs/.sweeps").iterdir()
    assert json.loads((launch / "0.json").read_text())["state"] == "interrupted"
    assert not list(launch.glob("claim.*"))


# Comparing


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Saved evidence of two arms with four seeds; the second is far better."""
    trials = [
        make_trial([0, level, level, level + seed], algorithm=name, seed=seed)
        for name, level in (("sail", 10.0), ("sail_revkl", 90.0))
        for seed in range(4)
    ]
    save_trials(trials, tmp_path / "saved.csv")
    return tmp_path / "saved.csv"


def test_compare_prints_the_verdict_and_saves_what_compares_the_same(saved: Path, tmp_path: Path) -> None:
    done = sailctl("compare", "saved.csv", "--resamples=200", "--save=again.csv", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "sail_revkl is better than sail on hopper-v5" in done.stdout
    again = sailctl("compare", "again.csv", "--resamples=200", cwd=tmp_path)
    assert again.stdout == done.stdout.partition("saved: again.csv")[0]
    assert (tmp_path / "again.csv").read_text() == saved.read_text()
    refused = sailctl("compare", saved.name, "--save=again.csv", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("sailctl: --save would overwrite again.csv")


@pytest.mark.parametrize(
    "variables",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["told", "locale"],
)
def test_what_a_terminal_cannot_show_is_replaced(variables: dict[str, str], saved: Path) -> None:
    code = "from sailctl.cli.main import main; import sys; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", str(saved), "--resamples=100"],
        env={**os.environ, **variables},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode("ascii").strip()
    assert b"?" in done.stdout


def test_a_backend_of_matplotlib_that_is_not_installed_is_not_asked_for(saved: Path, tmp_path: Path) -> None:
    code = "from sailctl.cli.main import main; import sys; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "plot", str(saved), f"--out={tmp_path / 'curves.png'}"],
        env={**os.environ, "MPLBACKEND": "no_such_backend"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_compare_refuses_what_is_unfair_until_it_is_forced(saved: Path, tmp_path: Path) -> None:
    wrong = {"oracle.mistake": 0.2}
    other = [make_trial([0, 5, 5, 5], algorithm="dpo_online", seed=s, settings=wrong) for s in range(4)]
    save_trials(other, tmp_path / "other.csv")
    arguments = ["compare", saved.name, "other.csv", "--resamples=200"]
    refused = sailctl(*arguments, cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(
        "sailctl: these runs cannot be compared: oracle.mistake differs (0.2, 0.0)"
    )
    assert refused.stderr.count("\n") == 1
    forced = sailctl(*arguments, "--force", cwd=tmp_path)
    assert forced.returncode == 0
    assert "Not a fair comparison: oracle.mistake differs" in forced.stdout
    named = sailctl(*arguments, "--by=oracle.*", "--by=algo.*", cwd=tmp_path)
    assert (named.returncode, "Not a fair comparison" in named.stdout) == (0, False)


def test_report_writes_the_page_and_its_tables(saved: Path, tmp_path: Path) -> None:
    done = sailctl(
        "report", saved.name, "--resamples=200", "--wandb=disabled", "--out=new/p.html", cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {"p.html", "p.md", "p.tex"} <= {file.name for file in (tmp_path / "new").iterdir()}
    assert "sail_revkl is better than sail on hopper-v5" in (tmp_path / "new/p.html").read_text()


def test_an_output_that_nobody_reads_to_its_end_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m sailctl tasks"
    done = subprocess.run(
        ["bash", "-c", f"{command} | true; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (141, "")
