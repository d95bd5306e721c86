"""From the curves of runs to verdicts, pictures and reports.

May import sweeps and what is below; it uses config, policies and runs.
"""
