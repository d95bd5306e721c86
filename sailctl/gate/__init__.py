"""The gate for CI: golden trajectories and the comparison of returns with a baseline.

May import analysis and what is below.
"""
