"""Gaussian policies, and the reference policies included in sailctl.

May import core, simulator, objectives and config.
"""
