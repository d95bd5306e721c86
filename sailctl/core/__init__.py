"""The foundation of all other folders: data types, random generators, saved states, files, task ids, wording.

Imports no other folder of sailctl.
"""
