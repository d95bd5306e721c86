"""The foundation of all other folders: data types, random generators, saved states, files, task ids.

Imports no other folder of sailctl.
"""
