"""Simulators that step, fork, save and restore batches of MuJoCo states; videos, and speed measurements.

May import core. This file imports nothing, because ``MUJOCO_GL`` (``video``) must be set before MuJoCo is
imported.
"""
