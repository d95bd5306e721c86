"""Videos of recorded physics states, rendered without a screen.

MuJoCo picks its OpenGL once, when it is first imported, and a failed choice cannot be taken back; so the
choice is probed, and the rendering done, in processes of their own.
"""

from __future__ import annotations

import functools
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sailctl.core.types import DoubleArray, IntArray, RunError

if TYPE_CHECKING:
    import mujoco

BACKENDS = ("egl", "osmesa")  # tried in this order when MUJOCO_GL is not set
CHOSEN = "SAILCTL_MUJOCO_GL"
"""Variable that holds the user's ``MUJOCO_GL``, which the command hides from the process that simulates."""
MAX_FPS = 50.0
WIDTH, HEIGHT = 640, 480  # pixels; multiples of 16, as the video codec wants

_AZIMUTH = 90.0  # degrees; the camera looks along +y, so that +x is to the right
_SMOOTHING_S = 0.5  # seconds over which the camera averages the position that it follows
_PROBE_S = 60.0  # seconds after which a probe counts as failed
_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
with mujoco.Renderer(model, 16, 16) as renderer:
    renderer.render()
"""


@functools.cache
def offscreen_backend() -> str | None:
    """An OpenGL that renders without a screen here, as a value of ``MUJOCO_GL``; None when there is none.

    A ``MUJOCO_GL`` that is set already is the only one tried.
    """
    chosen = os.environ.get(CHOSEN) or os.environ.get("MUJOCO_GL")
    for backend in (chosen,) if chosen else BACKENDS:
        try:
            probe = _run_python(_PROBE, backend, timeout=_PROBE_S)
        except subprocess.TimeoutExpired:
            continue
        if probe.returncode == 0:
            return backend
    return None


def render_video(
    model: mujoco.MjModel, states: DoubleArray, path: Path, camera: Mapping[str, float], dt: float
) -> None:
    """Render ``states`` as an mp4 file that plays at the speed of simulated time.

    States are left out where there are more than ``MAX_FPS`` in a second. The camera follows the model's
    first body along x and y.

    Args:
        model: the model that the states belong to.
        states: (T, nstate) states in the layout ``mjSTATE_FULLPHYSICS``, ``dt`` apart.
        path: file to write; it appears when it is complete.
        camera: ``distance`` (m), ``elevation`` (degrees) and ``height`` of the look-at point (m).
        dt: seconds of simulated time between two states.

    Raises:
        ValueError: when ``states`` has another shape or is not finite.
        RunError: when there is no offscreen OpenGL here, or rendering failed.
    """
    import mujoco

    width = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
    if states.ndim != 2 or len(states) == 0 or states.shape[1] != width or not np.isfinite(states).all():
        raise ValueError(f"states must be finite, (T, {width}) with T >= 1, got {states.shape}")
    backend = offscreen_backend()
    if backend is None:
        raise RunError(
            "no offscreen OpenGL (EGL or OSMesa) here; install libosmesa6 or libegl1; no video was made"
        )
    stride = max(1, math.ceil(1 / (dt * MAX_FPS) - 1e-9))
    with tempfile.TemporaryDirectory(prefix=".video-", dir=path.parent) as folder:
        work = Path(folder)
        mujoco.mj_saveModel(model, str(work / "model.mjb"), None)
        np.save(work / "states.npy", states[::stride])
        (work / "view.json").write_text(json.dumps({**camera, "dt": dt * stride}), encoding="utf-8")
        code = f"from sailctl.simulator.video import render_process; render_process({str(work.resolve())!r})"
        done = _run_python(code, backend)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise RunError(f"rendering with {backend} failed, no video was made: {reason}")
        (work / "video.mp4").replace(path)


def render_process(folder: str) -> None:
    """Body of the rendering process: the model, states and view in ``folder`` to its ``video.mp4``."""
    import imageio_ffmpeg
    import mujoco

    work = Path(folder)
    model = mujoco.MjModel.from_binary_path(str(work / "model.mjb"))
    data = mujoco.MjData(model)
    states = np.load(work / "states.npy")
    view = json.loads((work / "view.json").read_text(encoding="utf-8"))
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.azimuth, camera.elevation, camera.distance = _AZIMUTH, view["elevation"], view["distance"]

    path = np.empty((len(states), 2))
    for t, state in enumerate(states):
        mujoco.mj_setState(model, data, state, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        mujoco.mj_kinematics(model, data)
        path[t] = data.xpos[1, :2]
    path = smooth(path, max(1, round(_SMOOTHING_S / view["dt"])))

    floor, tile = floors(model)
    model.vis.global_.offwidth, model.vis.global_.offheight = WIDTH, HEIGHT
    model.vis.quality.offsamples = 0  # smoothed edges double the time of a frame in software OpenGL
    video = imageio_ffmpeg.write_frames(
        str(work / "video.mp4"), (WIDTH, HEIGHT), fps=1 / view["dt"], codec="libx264", quality=7
    )
    video.send(None)
    with mujoco.Renderer(model, HEIGHT, WIDTH) as renderer:
        # Shadows cost software OpenGL more than all the rest of a frame.
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        for state, (x, y) in zip(states, path, strict=True):
            mujoco.mj_setState(model, data, state, mujoco.mjtState.mjSTATE_FULLPHYSICS)
            mujoco.mj_forward(model, data)
            # The floor ends where it is drawn, not where it is simulated: it follows by whole tiles, unseen.
            data.geom_xpos[floor, :2] = model.geom_pos[floor, :2] + tile * np.round(np.array([x, y]) / tile)
            camera.lookat[:] = x, y, view["height"]
            renderer.update_scene(data, camera)
            video.send(renderer.render())
    video.close()


def floors(model: mujoco.MjModel) -> tuple[IntArray, DoubleArray]:
    """Ids (F,) of the level planes of the world that have an end, and size (F, 2) of their tiles (m)."""
    import mujoco

    level = (model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE) & (model.geom_quat[:, 0] == 1.0)
    ids = np.flatnonzero(level & (model.geom_bodyid == 0) & (model.geom_size[:, :2] > 0.0).all(axis=1))
    tile = np.ones((len(ids), 2))
    for row, (geom, material) in enumerate(zip(ids, model.geom_matid[ids], strict=True)):
        if material >= 0:
            span = 1.0 if model.mat_texuniform[material] else 2.0 * model.geom_size[geom, :2]
            tile[row] = span / model.mat_texrepeat[material]
    return ids, tile


def smooth(path: DoubleArray, steps: int) -> DoubleArray:
    """(T, 2) running mean of ``path`` (T, 2) over about ``steps`` rows, the ends repeated outwards."""
    before = steps // 2
    padded = np.pad(path, ((before, steps - 1 - before), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, steps, axis=0)
    mean: DoubleArray = windows.mean(axis=-1)
    return mean


def _run_python(code: str, backend: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in this interpreter's twin, with this import path and ``backend`` as its OpenGL."""
    environment = {**os.environ, "MUJOCO_GL": backend}
    environment.pop("PYOPENGL_PLATFORM", None)  # set by whichever OpenGL was imported in this process
    environment["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        timeout=timeout,
        check=False,
    )
