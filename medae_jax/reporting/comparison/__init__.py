"""Several runs on the same cases: paired bootstrap of every measure that stands in their tables."""
