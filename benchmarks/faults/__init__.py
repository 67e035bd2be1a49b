"""One-line faults put into a scratch copy of the code, one at a time: do the fast tests of its room see them?

`table/<room>.toml` holds the faults, `table.py` reads and checks them, `run.py` applies one and runs
its tests, `__main__.py` is the command. docs/faults.md has the figures.
"""
