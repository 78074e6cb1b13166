"""The commands, a file each.

`cli` describes their arguments, where users read them. They return what the terminal shows: a
sentence about the result and where it lies, behind a table if there is one.
"""
