"""Anomaly scores and maps out of what a network returns; on the device, per example."""
