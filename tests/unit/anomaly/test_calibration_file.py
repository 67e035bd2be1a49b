"""calibration.json: whatever is not what evaluate writes is named, key by key."""

import json

import pytest

from medae_jax.core import calibration
from medae_jax.core.errors import UserError

GOOD = {"threshold": 0.5, "image_threshold": 0.25, "scan_threshold": -1.5, "map_max": 2.0, "components": 20,
        "kind": "anomaly",
        "threshold_rule": "a", "image_threshold_rule": "b", "scan_threshold_rule": "c",
        "scan_scores": [0.5, 1.0], "probability": [1.0, 0.0], "window": [[0.0, 1.0]], "score": {"erosion": 3},
        "prepared": {}, "scored_with": {}, "score_fit": {}, "checkpoint": {"step": 4}}
WRONG = {"threshold": "high", "image_threshold": [1], "scan_threshold": {}, "map_max": -1.0,
         "components": 2.5,
         "kind": 5, "threshold_rule": 5, "image_threshold_rule": [], "scan_threshold_rule": {},
         "scan_scores": [0.5, "x"], "probability": 3, "window": [[0.0]], "score": [], "prepared": 1,
         "scored_with": "x", "score_fit": [], "checkpoint": {"step": "4"}}


def test_each_key_is_checked_and_may_be_absent_or_null(tmp_path):
  assert calibration.read(tmp_path) is None
  path = tmp_path / calibration.FILE
  path.write_text(json.dumps(GOOD))
  assert calibration.read(tmp_path) == GOOD
  for key, value in WRONG.items():
    path.write_text(json.dumps({**GOOD, key: value}))
    with pytest.raises(UserError, match=f"calibration.json is damaged .{key}="):
      calibration.read(tmp_path)
    path.write_text(json.dumps({**GOOD, key: None}))
    assert calibration.read(tmp_path)[key] is None


def test_its_line_has_every_threshold_with_its_rule():
  assert calibration.explain(GOOD) == (
      "pixel threshold 0.5 (a); image threshold 0.25 (b); scan threshold -1.5 (c)")
  assert calibration.explain({"scan_threshold": None, "scan_threshold_rule": "none: too few"}) == (
      "scan threshold none: too few")
  assert calibration.explain({}) == "no threshold"
  assert "no rule given" in calibration.explain({"threshold": 1.0})
