"""The verbs of ``sailctl``.

May import everything. Heavy libraries are imported inside the verb that needs them.
"""
