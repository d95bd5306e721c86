"""Analysis of learning curves: statistics, verdicts, figures and reports.

May import sweeps and what is below; it uses config, policies and runs.
"""
