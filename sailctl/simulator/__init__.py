"""Simulators: batches of MuJoCo states that are stepped, forked, saved and restored; videos and speed.

May import core. This file imports nothing: who sets ``MUJOCO_GL`` (``video``) has to do so before mujoco is
imported.
"""
