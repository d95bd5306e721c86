"""Videos of recorded physics states, rendered without a screen.

MuJoCo selects its OpenGL library when it is first imported, and cannot change it afterwards. So libraries are
probed, and videos are rendered, in separate processes.
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
"""Variable that holds the user's ``MUJOCO_GL``, which the command hides from the simulating process."""
MAX_FPS = 50.0
WIDTH, HEIGHT = 640, 480  # pixels; the video codec requires multiples of 16

_AZIMUTH = 90.0  # degrees; the camera looks along +y, so that +x is to the right
_SMOOTHING_S = 0.5  # seconds over which the followed position is averaged
_PROBE_S = 60.0  # seconds after which a probe counts as failed
_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
with mujoco.Renderer(model, 16, 16) as renderer:
    renderer.render()
"""


@functools.cache
def offscreen_backend() -> str | None:
    """An OpenGL library that renders without a screen, as a value of ``MUJOCO_GL``; None if none works.

    If the user has set ``MUJOCO_GL``, only that one is tried.
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
    """Render ``states`` as an mp4 file that plays in simulated time.

    The frame rate is at most ``MAX_FPS``; further states are left out. The camera follows the model's first
    body along x and y.

    Args:
        model: the model that the states belong to.
        states: (T, nstate) states, ``mjSTATE_FULLPHYSICS``.
        path: file to write; it is created when the video is complete.
        camera: ``distance`` (m), ``elevation`` (degrees) and ``height`` of the look-at point (m).
        dt: simulated seconds between two states.

    Raises:
        ValueError: when ``states`` has another shape or is not finite.
        RunError: when there is no offscreen OpenGL, or rendering fails.
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
    """Body of the rendering process: render the files of ``folder`` to ``video.mp4`` in it."""
    import imageio_ffmpeg
    import mujoco
    from scipy.ndimage import uniform_filter1d

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
    path = uniform_filter1d(path, max(1, round(_SMOOTHING_S / view["dt"])), axis=0, mode="nearest")

    floor, tile = floors(model)
    model.vis.global_.offwidth, model.vis.global_.offheight = WIDTH, HEIGHT
    model.vis.quality.offsamples = 0  # antialiasing doubles the time per frame in software OpenGL
    video = imageio_ffmpeg.write_frames(
        str(work / "video.mp4"), (WIDTH, HEIGHT), fps=1 / view["dt"], codec="libx264", quality=7
    )
    video.send(None)
    with mujoco.Renderer(model, HEIGHT, WIDTH) as renderer:
        # In software OpenGL shadows take longer than the rest of a frame.
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        for state, (x, y) in zip(states, path, strict=True):
            mujoco.mj_setState(model, data, state, mujoco.mjtState.mjSTATE_FULLPHYSICS)
            mujoco.mj_forward(model, data)
            # The drawn floor is finite, the simulated one is not. So it follows the camera, by whole tiles.
            data.geom_xpos[floor, :2] = model.geom_pos[floor, :2] + tile * np.round(np.array([x, y]) / tile)
            camera.lookat[:] = x, y, view["height"]
            renderer.update_scene(data, camera)
            video.send(renderer.render())
    video.close()


def floors(model: mujoco.MjModel) -> tuple[IntArray, DoubleArray]:
    """(F,) ids of the horizontal planes of finite size in the world, and (F, 2) sizes of their tiles (m)."""
    import mujoco

    level = (model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE) & (model.geom_quat[:, 0] == 1.0)
    ids = np.flatnonzero(level & (model.geom_bodyid == 0) & (model.geom_size[:, :2] > 0.0).all(axis=1))
    tile = np.ones((len(ids), 2))
    for row, (geom, material) in enumerate(zip(ids, model.geom_matid[ids], strict=True)):
        if material >= 0:
            span = 1.0 if model.mat_texuniform[material] else 2.0 * model.geom_size[geom, :2]
            tile[row] = span / model.mat_texrepeat[material]
    return ids, tile


def _run_python(code: str, backend: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a new interpreter with the same import path, and with ``backend`` as its OpenGL."""
    environment = {**os.environ, "MUJOCO_GL": backend}
    environment.pop("PYOPENGL_PLATFORM", None)  # set when OpenGL is imported in this process
    environment["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        timeout=timeout,
        check=False,
    )
