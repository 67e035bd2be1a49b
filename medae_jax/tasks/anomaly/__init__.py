"""Task "anomaly": maps and image scores against masks and labels; thresholds, intervals, pictures."""
