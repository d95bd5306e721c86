"""Runs every part of the theory lab, two at a time (a few minutes on two cores)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

PARTS = ("convergence", "robust", "critic", "designs", "landscape", "gradient")
"""The slowest first."""


def run(part: str) -> tuple[str, int, float]:
    """Run one part with the options of this command; return its name, exit code and seconds."""
    began = time.monotonic()
    # One core each: results do not depend on a thread count, and the parts share the machine.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"benchmarks.theory.{part}", *sys.argv[1:]]
    done = subprocess.run(command, env=environment, check=False)
    return part, done.returncode, time.monotonic() - began


def main() -> int:
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(run, PARTS))
    for part, code, seconds in ended:
        print(f"theory.{part:<12} {'done' if code == 0 else f'exit code {code}'} in {seconds:.0f} s")
    print(f"all in {time.monotonic() - began:.0f} s")
    return max(code for _, code, _ in ended)


if __name__ == "__main__":
    sys.exit(main())
