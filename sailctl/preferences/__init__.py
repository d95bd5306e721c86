"""The sources of labels: teachers, query selection, the reward model, and the classes that query and label.

Only this folder combines a teacher, its label budget and a reward model. Two classes query the teacher.
``Labeller`` queries about the segments of an iteration and labels them. The learner gets ``Preferences``,
``Rankings``, or unlabelled ``Pairs`` that the policy labels itself. ``Sessions`` queries at intervals of env
steps about windows of past behaviour. The learner gets the learned reward.

May import data and the folders below.
"""
