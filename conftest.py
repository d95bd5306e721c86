"""What every test shares: one thread, repeatable examples, and an honest count of what did not run."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import settings

# Set before torch and wandb are first imported; a value from outside wins.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

settings.register_profile("sailctl", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("sailctl")

MARKERS = ("slow", "learning", "slurm")
left_out: Counter[str] = Counter()


def pytest_deselected(items: list[pytest.Item]) -> None:
    left_out.update(name for item in items for name in MARKERS if item.get_closest_marker(name))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["left_out"] = dict(left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Each of the processes that share the tests has collected, and left out, the same ones."""
    left_out.update(Counter(getattr(node, "workeroutput", {}).get("left_out", {})) - left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    chosen = config.option.markexpr or "every test"
    counts = ", ".join(f"{left_out[name]} {name}" for name in MARKERS)
    terminalreporter.write_line(f"markers run: {chosen}; not run: {counts}")
