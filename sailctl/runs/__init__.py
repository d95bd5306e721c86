"""The run directory: its record, its lock, its checkpoints, where its numbers come from, and its mirrors.

May import preferences and what is below.
"""
