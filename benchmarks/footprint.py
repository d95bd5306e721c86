"""What sailctl costs besides simulating: time to answer ``--help``, time to refuse bad input, peak memory.

Peak memory is the largest resident set of the training process and of the process that mirrors it to
Weights & Biases, added up as if both peaks fell together.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from benchmarks.record import arguments, write


def seconds(command: list[str], expected: int) -> float:
    """Wall-clock seconds of a command that must exit with ``expected``."""
    start = time.perf_counter()
    code = subprocess.run(command, capture_output=True, check=False).returncode
    if code != expected:
        raise SystemExit(f"{' '.join(command)}: exit code {code}, expected {expected}")
    return time.perf_counter() - start


def children(pid: int) -> list[int]:
    """Every process below ``pid``, itself included."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [grandchild for child in task.read_text().split() for grandchild in children(int(child))]
    return found


def peak_mib(command: list[str]) -> float:
    """Highest sum of the peak resident sets (MiB) of a command and all of its processes."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peaks: dict[int, float] = {}

    def watch() -> None:
        while process.poll() is None:
            for pid in children(process.pid):
                status = Path(f"/proc/{pid}/status")
                try:
                    lines = status.read_text().splitlines()
                except OSError:  # the process ended between listing and reading
                    continue
                high = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
                peaks[pid] = max([peaks.get(pid, 0.0), *high])
            time.sleep(0.2)

    thread = threading.Thread(target=watch)
    thread.start()
    code = process.wait()
    thread.join()
    if code:
        raise SystemExit(f"{' '.join(command)}: exit code {code}")
    return sum(peaks.values())


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--env-steps", type=int, default=1_000_000, help="length of the run that is weighed")
    asked = parser.parse_args()
    sailctl = str(Path(sys.executable).parent / "sailctl")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    help_s = median(seconds([sailctl, "--help"], 0) for _ in range(asked.repeats))
    refusal_s = median(seconds([sailctl, "train", "algo.gama=1"], 2) for _ in range(asked.repeats))
    with tempfile.TemporaryDirectory() as out:
        memory = peak_mib([sailctl, "train", f"out={out}", f"env_steps={asked.env_steps}"])
    rows = [
        {"what": "sailctl --help", "value": round(help_s, 3), "unit": "s", "asked": "< 0.5"},
        {"what": "refusing an unknown key", "value": round(refusal_s, 3), "unit": "s", "asked": "< 2"},
        {"what": "peak memory of a default run", "value": round(memory), "unit": "MiB", "asked": "< 1536"},
    ]
    write(asked.results, "footprint", rows, {"what": __doc__, "repeats": asked.repeats})


if __name__ == "__main__":
    main()
