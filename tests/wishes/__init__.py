"""What users of like programs have asked for, each with the command that answers it and the test that runs it."""
