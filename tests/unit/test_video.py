"""Videos: right frames at the right speed, with the robot in view, or one clear line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import imageio.v3 as iio
import mujoco
import numpy as np
import pytest

from sailctl.core.types import DoubleArray, RunError
from sailctl.simulator import video
from sailctl.simulator.video import floors, offscreen_backend, render_video
from sailctl_envs import ALL_TASKS

FULL = mujoco.mjtState.mjSTATE_FULLPHYSICS


@pytest.fixture(autouse=True)
def _fresh_probe() -> Iterator[None]:
    offscreen_backend.cache_clear()
    yield
    offscreen_backend.cache_clear()


def states_of(model: mujoco.MjModel, qpos: DoubleArray) -> DoubleArray:
    """Physics states at rest with the joint positions ``qpos`` (T, nq)."""
    data, size = mujoco.MjData(model), mujoco.mj_stateSize(model, FULL)
    states = np.empty((len(qpos), size))
    for state, q in zip(states, qpos, strict=True):
        data.qpos[:] = q
        mujoco.mj_getState(model, data, state, FULL)
    return states


def need_offscreen() -> None:
    if offscreen_backend() is None:
        pytest.skip("no offscreen OpenGL here")


@pytest.mark.parametrize(("task_id", "frames", "fps"), [("halfcheetah-v5", 9, 20), ("hopper-v5", 3, 125 / 3)])
def test_a_video_plays_at_the_speed_of_simulated_time(tmp_path: Path, task_id: str, frames: int, fps: float):
    need_offscreen()
    task = ALL_TASKS[task_id]()
    model = task.make_model()
    qpos = np.tile(model.qpos0, (9, 1))
    qpos[:, 0] = np.linspace(100.0, 101.0, 9)  # far from the origin: only a camera that follows sees it
    render_video(model, states_of(model, qpos), tmp_path / "v.mp4", task.camera, task.dt)
    assert [file.name for file in tmp_path.iterdir()] == ["v.mp4"]
    assert iio.immeta(tmp_path / "v.mp4", plugin="FFMPEG")["fps"] == pytest.approx(fps, abs=0.01)
    shown = iio.imread(tmp_path / "v.mp4", plugin="FFMPEG")
    assert shown.shape == (frames, 480, 640, 3)
    # The robots are orange, the floor and the sky are not.
    red, _, blue = np.moveaxis(shown[frames // 2].astype(int), -1, 0)
    rows, columns = np.nonzero(red - blue > 60)
    assert len(rows) > 500
    assert 150 < columns.mean() < 490
    assert rows.min() > 10
    assert rows.max() < 470


def test_the_floor_goes_with_the_runner(tmp_path: Path):
    need_offscreen()
    task = ALL_TASKS["halfcheetah-v5"]()
    model = task.make_model()
    (floor,), ((tile, _),) = floors(model)
    assert model.geom(floor).name == "floor"
    pictures = []
    for tiles in (0, 10, 1000):  # the floor as it is simulated ends after 30 tiles
        qpos = np.tile(model.qpos0, (2, 1))
        qpos[:, 0] = tiles * tile
        render_video(model, states_of(model, qpos), tmp_path / "v.mp4", task.camera, task.dt)
        pictures.append(iio.imread(tmp_path / "v.mp4", plugin="FFMPEG")[0].astype(int))
    # The light stays at the origin, so brightness may differ; black and white tiles may not.
    for picture in pictures[1:]:
        assert np.corrcoef(pictures[0][240:].ravel(), picture[240:].ravel())[0, 1] > 0.95


@pytest.mark.parametrize("task_id", ["ant-v5", "inverteddoublependulum-v5", "pusher-v5", "quadruped_walk"])
def test_a_task_moves_in_its_picture(tmp_path: Path, task_id: str):
    need_offscreen()
    task = ALL_TASKS[task_id]()
    model = task.make_model()
    qpos = np.tile(model.qpos0, (2, 1))
    qpos[1, :3] += (0.3, 0.2, 0.5)[: min(3, model.nq)]
    render_video(model, states_of(model, qpos), tmp_path / "v.mp4", task.camera, 0.1)
    first, second = iio.imread(tmp_path / "v.mp4", plugin="FFMPEG").astype(int)
    assert first.std() > 5
    assert (np.abs(first - second).max(axis=-1) > 30).mean() > 0.002


def test_no_opengl_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(video, "offscreen_backend", lambda: None)
    model = ALL_TASKS["hopper-v5"]().make_model()
    with pytest.raises(RunError, match=r"^no offscreen OpenGL \(EGL or OSMesa\) here; .* no video was made$"):
        render_video(model, states_of(model, model.qpos0[None]), tmp_path / "v.mp4", {}, 0.1)
    assert list(tmp_path.iterdir()) == []


def test_a_rendering_that_fails_leaves_nothing(tmp_path: Path):
    need_offscreen()
    model = ALL_TASKS["hopper-v5"]().make_model()
    states = states_of(model, model.qpos0[None])
    with pytest.raises(RunError, match=r"^rendering with \w+ failed, no video was made: KeyError: '\w+'$"):
        render_video(model, states, tmp_path / "v.mp4", {"distance": 1.0}, 0.1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(0, 12), (3, 5), (12,)])
def test_states_of_another_shape_are_refused(tmp_path: Path, shape: tuple[int, ...]):
    model = ALL_TASKS["hopper-v5"]().make_model()
    with pytest.raises(ValueError, match=r"\(T, \d+\)"):
        render_video(model, np.zeros(shape), tmp_path / "v.mp4", {}, 0.1)


def test_states_that_are_not_finite_are_refused(tmp_path: Path):
    model = ALL_TASKS["hopper-v5"]().make_model()
    states = states_of(model, model.qpos0[None])
    states[0, 3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        render_video(model, states, tmp_path / "v.mp4", {}, 0.1)


@pytest.mark.parametrize(
    ("chosen", "works", "expected", "tried"),
    [
        (None, {"egl", "osmesa"}, "egl", ["egl"]),
        (None, {"osmesa"}, "osmesa", ["egl", "osmesa"]),
        (None, set(), None, ["egl", "osmesa"]),
        ("osmesa", {"egl", "osmesa"}, "osmesa", ["osmesa"]),
        ("glfw", {"egl", "osmesa"}, None, ["glfw"]),
    ],
)
def test_the_first_backend_that_works_is_taken(
    monkeypatch: pytest.MonkeyPatch,
    chosen: str | None,
    works: set[str],
    expected: str | None,
    tried: list[str],
):
    seen = []

    def probe(command: list[str], env: dict[str, str], **options: object) -> subprocess.CompletedProcess[str]:
        assert options["timeout"] == 60
        seen.append(env["MUJOCO_GL"])
        if env["MUJOCO_GL"] == "egl" and "egl" not in works:
            raise subprocess.TimeoutExpired(command, 60)  # a driver that hangs counts as none
        return subprocess.CompletedProcess(command, 0 if env["MUJOCO_GL"] in works else 1, "", "")

    monkeypatch.setattr(subprocess, "run", probe)
    for name in ("MUJOCO_GL", "SAILCTL_MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    if chosen is not None:
        monkeypatch.setenv("MUJOCO_GL", chosen)
    assert offscreen_backend() == expected
    assert offscreen_backend() == expected  # asked once, remembered
    assert seen == tried


def test_the_probe_is_real(monkeypatch: pytest.MonkeyPatch):
    """A platform that MuJoCo does not have fails in the probe's own process."""
    monkeypatch.setenv("MUJOCO_GL", "no-such-platform")
    assert offscreen_backend() is None


def test_importing_video_leaves_mujoco_alone():
    code = "import sys, sailctl.simulator.video; print('mujoco' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
