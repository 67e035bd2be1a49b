"""What the one loop of train.py is made of: starts, lanes, bookkeeping, feed, validation ...

Nothing here knows a method by name.
"""
