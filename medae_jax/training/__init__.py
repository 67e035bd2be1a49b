"""What the one loop of train.py is made of: bookkeeping, feed, validation, progress, writer, signals.

Nothing here knows a method by name.
"""
