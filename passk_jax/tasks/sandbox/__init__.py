"""Running programs that nobody has read: a model's answers to programming problems.

`candidate` runs inside, with the program; `isolation` puts it there; `unit_tests` runs the tests
outside, where no program can reach them.
"""
