"""The one loop, evaluation, data sets that are collected, and how the reference policies are made.

May import algorithms and what is below.
"""
