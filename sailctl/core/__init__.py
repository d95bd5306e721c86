"""What everything else is written in: types, named random generators, exact states, files, tasks.

Imports nothing of sailctl.
"""
