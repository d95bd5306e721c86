"""Behaviour and answers: rollouts, stored steps, the teacher's answers, and data sets of preferences.

May import policies and the folders below.
"""
