"""Runs programs that nobody has read: a model's answers to programming problems.

`candidate` runs inside the sandbox, with the program. `isolation` makes the sandbox. `unit_tests`
runs the tests outside, where no program can reach them.
"""
