"""What a run remembers from one iteration to the next: the teacher's answers, and what the policy did."""

from __future__ import annotations

from sailctl.buffers.answers import Answers
from sailctl.buffers.history import History

__all__ = ["Answers", "History"]
