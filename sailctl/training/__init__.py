"""The training loop, evaluation, collection of preference data sets, and training of the reference policies.

May import algorithms and the folders below.
"""
