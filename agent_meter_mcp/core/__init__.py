"""The rules of the meter: pure functions and values. No clock, no I/O, nothing but the standard library.

Modules of this package are on the path of one-shot processes (hooks), so they do not import `typing`,
`dataclasses`, `enum`, `re` or `json` at run time: each of those costs as much as the interpreter's own start.
"""
