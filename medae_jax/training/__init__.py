"""What the one loop of train.py is made of: starts, lanes, bookkeeping, feed, validation ...

Also what sweep.py is made of: plan, job, slurm. Nothing here knows a method by name.
"""
