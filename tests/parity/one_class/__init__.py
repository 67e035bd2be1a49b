"""Methods of the one-class benchmark that need no reconstruction."""
