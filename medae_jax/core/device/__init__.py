"""What depends on the machine: XLA's flags for CPUs, loops that XLA compiles well, timing and peaks,
work that processes share.

`core.parallel` (N devices) stands above: methods import it, and nothing here knows of steps or runs.
"""
