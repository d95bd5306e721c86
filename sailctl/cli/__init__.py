"""The verbs of ``sailctl``.

May import everything. Heavy libraries load inside the verb that needs them.
"""
