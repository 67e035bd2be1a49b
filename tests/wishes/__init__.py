"""What users of like programs ask for, each with the command that answers it and the tests that run it."""
