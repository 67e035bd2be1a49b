"""What depends on the processor: XLA's flags for CPUs, loops that XLA compiles well, timing and peaks.

`core.parallel` (N devices) stands above: methods import it, and nothing here knows of steps or runs.
"""
