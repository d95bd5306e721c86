"""Many runs from one command line: composition, launch, SLURM, and the state of each job.

May import training and the folders below.
"""
