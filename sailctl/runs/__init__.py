"""The run directory: record, lock, checkpoints, provenance, and mirrors.

May import preferences and the folders below.
"""
