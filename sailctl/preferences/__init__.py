"""Where labels come from: teachers, the choice of questions, the reward model, and who asks and labels.

This is the one folder that sees a teacher, its label budget and a reward model together. There are two ways
to ask. ``Labeller`` asks about the segments of an iteration and labels them. What leaves it for the learner
is answers alone: ``Preferences``, ``Rankings``, or bare ``Pairs`` that the policy labels itself.
``Sessions`` asks every so many env steps about windows of behaviour. What leaves it is the learned reward.

May import data and what is below.
"""
