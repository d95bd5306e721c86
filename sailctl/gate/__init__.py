"""The regression gate for CI: golden trajectories, and comparison of returns with a baseline.

May import analysis and the folders below.
"""
