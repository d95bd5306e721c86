"""The wheel is the whole product: it is built, installed elsewhere, and trains there without the checkout.

An editable install is only looked at: ``make test`` runs this whole suite from one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
LAUNCHERS = "hydra_plugins/sailctl_launchers.py"
SMOKE = (
    "env=invertedpendulum-v5",
    "env_steps=2000",
    "algo.learning_starts=400",
    "algo.warmup=20",
    "algo.window=20",
    "algo.initial_queries=8",
    "algo.queries=4",
    "algo.query_interval=400",
    "evaluation.episodes=1",
    "logger.wandb=disabled",
)


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Standard output of a command that has to succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, CHECKOUT, cwd=out)
    (path,) = out.glob("*.whl")
    return path


class Installed:
    """The wheel in a folder of its own, used from a working directory of its own."""

    def __init__(self, wheel: Path, place: Path) -> None:
        self.site, self.cwd = place / "site", place / "elsewhere"
        self.cwd.mkdir()
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile")
        run(*pip, "--target", self.site, wheel, cwd=place)
        # Ahead of the environment's own packages, among which the checkout is installed as editable.
        self.env = {**os.environ, "PYTHONPATH": str(self.site)}

    def python(self, code: str) -> str:
        return run(sys.executable, "-P", "-c", code, cwd=self.cwd, env=self.env)

    def sailctl(self, *arguments: str | Path) -> str:
        return run(self.site / "bin" / "sailctl", *arguments, cwd=self.cwd, env=self.env)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(wheel, tmp_path_factory.mktemp("installed"))


def contents(wheel: Path) -> list[str]:
    return sorted(name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name)


def test_wheel_claims_only_its_two_import_names(wheel: Path):
    """And one file of the package that all plugins of Hydra share."""
    assert {name.split("/")[0] for name in contents(wheel)} == {"sailctl", "sailctl_envs", "hydra_plugins"}
    assert [name for name in contents(wheel) if name.startswith("hydra_plugins/")] == [LAUNCHERS]


def test_an_editable_install_brings_the_launchers(tmp_path: Path):
    """It maps the two import names to the checkout; a package that others share cannot be mapped."""
    code = f"from hatchling.build import build_editable; print(build_editable({str(tmp_path)!r}))"
    name = run(sys.executable, "-c", code, cwd=CHECKOUT).split()[-1]
    assert contents(tmp_path / name) == ["_editable_impl_sailctl.pth", "_editable_impl_sailctl.py", LAUNCHERS]


def test_wheel_holds_every_file_of_the_checkout(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    for source, target in (
        (CHECKOUT / "sailctl", "sailctl"),
        (CHECKOUT / "envs" / "sailctl_envs", "sailctl_envs"),
        (CHECKOUT / "conf", "sailctl/conf"),
    ):
        files = [
            path
            for path in source.rglob("*")
            if path.suffix in {".py", ".yaml", ".css"} or path.name == "py.typed"
        ]
        assert files
        assert {f"{target}/{path.relative_to(source).as_posix()}" for path in files} <= names


def test_the_checkout_is_out_of_reach(installed: Installed):
    places = installed.python(
        "import sailctl, sailctl_envs, hydra_plugins.sailctl_launchers as launchers\n"
        "print(sailctl.__file__, sailctl_envs.__file__, launchers.__file__)"
    ).split()
    assert len(places) == 3
    assert all(Path(place).is_relative_to(installed.site) for place in places)


def test_version_is_that_of_the_package(installed: Installed, wheel: Path):
    version = installed.sailctl("--version").split()[-1]
    assert wheel.name.startswith(f"sailctl-{version}-")


def test_whole_config_is_shown(installed: Installed):
    shown = installed.sailctl("train", "--cfg", "job")
    assert "id: halfcheetah-v5" in shown
    assert "gamma:" in shown


def test_smoke_training_and_evaluation(installed: Installed):
    installed.sailctl("train", *SMOKE, "out=out")
    (run_dir,) = (installed.cwd / "out" / "invertedpendulum-v5" / "sail_revkl").glob("*-s0")
    assert "return" in installed.sailctl("eval", run_dir)
    code = f"import numpy, sailctl; policy = sailctl.load_policy({str(run_dir)!r})"
    assert installed.python(f"{code}; print(policy.predict(numpy.zeros(4))[0].shape)").strip() == "(1,)"


def test_a_sweep_by_the_launcher_of_the_wheel(installed: Installed):
    installed.sailctl("train", "-m", *SMOKE, "hydra/launcher=local", "seed=1,2", "out=sweep")
    assert len(list((installed.cwd / "sweep").rglob("policy.safetensors"))) == 2
    assert len(list((installed.cwd / "sweep").rglob("*_log.err"))) == 2
