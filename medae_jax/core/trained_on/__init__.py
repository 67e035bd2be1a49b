"""What a run was trained on: the record of it in the workdir, and whether an input fits it."""
