"""Analysis of learning curves: statistics, verdicts, figures and reports.

May import sweeps and the folders below; it uses config, policies and runs.
"""
