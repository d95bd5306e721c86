"""Many runs from one command line: composing, launching, SLURM, and where each job stands.

May import training and what is below.
"""
