"""What a policy did: rollouts, remembered steps, the teacher's answers, and data sets of preferences.

May import policies and what is below.
"""
