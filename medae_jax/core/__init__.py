"""What every method stands on: protocol, parallel step, checkpoints, writer."""
