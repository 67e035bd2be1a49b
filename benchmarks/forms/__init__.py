"""Several ways to compute one thing, against each other."""
