"""Every field of a family of experiments with its published default; config files fill in the rest."""
