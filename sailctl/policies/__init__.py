"""Gaussian policies, and the reference policies that ship with the suite.

May import core, simulator, objectives and config.
"""
