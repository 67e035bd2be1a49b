"""Groups of a config that are younger than the first runs: read_config adds them where they are missing."""

from __future__ import annotations

EXPORT = dict(
    formats=("stablehlo", "weights"),  # of stablehlo, weights, safetensors, saved_model
    image_size=())                     # (rows, columns) to export for; () = those of training

BENCH = dict(
    repeats=5,                         # of every measurement
    seconds=1.0,                       # least time of a repeat
    stage="")                          # name of the training stage; "" = the last, the largest

# Single fields that are younger, in groups that every run has.
YOUNGER_FIELDS: dict[str, dict] = {"predict": {"force": False}, "eval": {"choose_score": ()}}

YOUNGER: dict[str, dict] = {"export": EXPORT, "bench": BENCH}
