"""Where a run's numbers and pictures go besides metrics.jsonl: TensorBoard, MLflow, Weights & Biases.

docs/tracking.md; metrics.jsonl itself is written by training/writer.py.
"""
