"""Where labels come from: the teacher, a reward model that learned from it, or nobody.

The one room that sees a teacher, its label budget and a reward model together. There are two ways to ask.
``Labeller`` asks about the segments of an iteration and labels them; what leaves it for the learner is
answers alone: ``Preferences``, ``Rankings``, or bare ``Pairs`` that the policy labels itself. ``Sessions``
asks every so many env steps about windows of recent behaviour; what leaves it is the learned reward.
"""

from __future__ import annotations

from sailctl.labelling.labeller import Labeller
from sailctl.labelling.sessions import Schedule, Sessions

__all__ = ["Labeller", "Schedule", "Sessions"]
