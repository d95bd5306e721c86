"""What a run remembers from one iteration to the next: the teacher's answers, and what the policy did."""

from __future__ import annotations

from sailctl.buffers.answers import Answers
from sailctl.buffers.history import History
from sailctl.buffers.replay import Experience, Replay

__all__ = ["Answers", "Experience", "History", "Replay"]
