"""docs/tasks.md: a table and a picture of every task, and how fast it is beside the physical limit.

The limit is what as many bare ``mj_step`` loops as threads reach at the same time, on the same controls and
from the same state, measured in turns with the simulator of 128 states (``simulator.speed``). Numbers are
medians over the turns, and the share is taken within each turn.

--only docs writes the page and the pictures from the numbers that are there, --only page the page alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.record import RESULTS, arguments, write
from sailctl.cli.listing import columns, page
from sailctl.core.files import write_atomically
from sailctl.simulator.speed import measure
from sailctl_envs import ALL_TASKS

DOCS = Path(__file__).resolve().parent.parent / "docs"
THREADS = (1, 2)
STATES = 128
SIZE = (320, 240)  # pixels of a picture
WARM_UP_S = 0.2  # simulated seconds before the picture is taken
CONTROL = 0.3  # share of the actuators' range that random controls use before it
TUMBLING = ("hopper_", "quadruped_", "walker_")  # drawn starts that tumble: pictured from the model's own
LIGHT = 0.35  # ambient light, where the model has less
INTRODUCTION = """\
# Tasks

<!-- Made by `python -m benchmarks.tasks` from the task classes and results/tasks.csv: change those. -->

Every task here is batched and forkable, and the same as its original: `tests/contract/test_tasks.py`
compares them step by step. `sailctl tasks` prints the list, `sailctl tasks ant-v5` one of these sections.
Those of dm_control need the extra `dmc`.

Speed is in control steps per second for 128 states, observations, rewards and terminations included. The
limit is what as many bare `mj_step` loops as threads reach at the same time on the same controls. The share
is a median over turns; on a machine with other work it can come out above 1. `results/tasks.json` says where
and when it was measured.
"""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder to write tasks.md and tasks/ into")
    parser.add_argument("--only", choices=["docs", "page"], help="leave out the measurement, or pictures too")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one measurement")
    asked = parser.parse_args()
    if asked.only is None:
        rows = [
            speeds(task, threads, asked.turns, asked.seconds) for task in ALL_TASKS for threads in THREADS
        ]
        write(asked.results, "tasks", rows, {"what": __doc__})
    if asked.only != "page":
        draw_pictures(asked)
    write_atomically(asked.docs / "tasks.md", document(asked.results))


def speeds(task: str, threads: int, turns: int, seconds: float) -> dict[str, object]:
    """One row of results/tasks.csv."""
    rates = measure(task, threads, STATES, turns, seconds)
    share = rates.simulator / rates.together
    return {
        "task": task,
        "threads": threads,
        "states": STATES,
        "limit_steps_per_s": round(float(np.median(rates.together))),
        "steps_per_s": round(float(np.median(rates.simulator))),
        "share": round(float(np.median(share)), 3),
        "share_lowest": round(float(share.min()), 3),
        "share_highest": round(float(share.max()), 3),
        "share_of_threads_times_one_loop": round(
            float(np.median(rates.simulator / (threads * rates.bare))), 3
        ),
        "turns": turns,
    }


def document(results: Path = RESULTS) -> str:
    """The text of docs/tasks.md, from the task classes and ``tasks.csv`` in ``results``."""
    measured = pd.read_csv(results / "tasks.csv")
    sections = [INTRODUCTION]
    for name, task in ALL_TASKS.items():
        mine = measured[measured["task"] == name]
        head = ("threads", "limit, steps/s", "steps/s", "share", "lowest to highest")
        rows = [
            (
                str(row.threads),
                f"{row.limit_steps_per_s:,}",
                f"{row.steps_per_s:,}",
                f"{row.share:.2f}",
                f"{row.share_lowest:.2f} to {row.share_highest:.2f}",
            )
            for row in mine.itertuples()
        ]
        picture = f"![{name}](tasks/{name}.png)"
        sections += [f"## {name}", picture, page(task()), columns([head, *rows], markdown=True)]
    return "\n\n".join(section.strip() for section in sections) + "\n"


def draw_pictures(asked: argparse.Namespace) -> None:
    """One picture of every task, in a process of its own: MuJoCo picks its OpenGL when it is imported."""
    from sailctl.simulator.video import offscreen_backend

    (asked.docs / "tasks").mkdir(parents=True, exist_ok=True)
    code = "import sys; from benchmarks.tasks import draw; draw(sys.argv[1])"
    command = ["env", f"MUJOCO_GL={offscreen_backend()}", sys.executable, "-c", code]
    subprocess.run([*command, str(asked.docs / "tasks")], check=True)


def draw(folder: str) -> None:
    """Write ``folder/<id>.png`` for every task: the state after a little random control."""
    import matplotlib.image
    import mujoco

    from sailctl.simulator.batched import TaskSimulator

    for name, task in ALL_TASKS.items():
        simulator, rng = TaskSimulator(task()), np.random.default_rng(0)
        spec, model, view = simulator.spec, simulator.model, simulator.camera
        states = simulator.reset(1, rng)
        if name.startswith(TUMBLING):
            states.physics[:, 1 : 1 + model.nq] = model.qpos0
        for _ in range(min(round(WARM_UP_S / spec.dt), spec.horizon)):
            control = CONTROL * rng.uniform(spec.act_low, spec.act_high, (1, spec.act_dim))
            states = simulator.step(states, control).states
        data = mujoco.MjData(model)
        mujoco.mj_setState(model, data, states.physics[0], mujoco.mjtState.mjSTATE_FULLPHYSICS)
        mujoco.mj_forward(model, data)
        camera = mujoco.MjvCamera()
        camera.azimuth, camera.elevation, camera.distance = 90.0, view["elevation"], view["distance"]
        camera.lookat[:] = *data.xpos[1, :2], view["height"]
        ambient = model.vis.headlight.ambient
        ambient[:] = np.maximum(ambient, LIGHT)
        width, height = SIZE
        with mujoco.Renderer(model, height, width) as renderer:
            renderer.update_scene(data, camera)
            matplotlib.image.imsave(f"{folder}/{name}.png", renderer.render())


if __name__ == "__main__":
    main()
