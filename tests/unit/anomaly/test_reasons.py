"""What has no number in an evaluation has its reason in the notes."""

import numpy as np

from medae_jax.metrics import detection
from medae_jax.tasks.anomaly import scan_measures
from tests.unit.anomaly import by_hand
from tests.unit.anomaly.test_measures import collected, measured


def test_what_has_no_number_has_its_reason(monkeypatch):
  """No threshold of val, too many patients for an interval, no masks, no probabilities of val, one kind."""
  mask, maps = np.zeros((2, 8, 8)), np.full((2, 8, 8), 0.2)
  mask[:, 2:4, 2:4] = 1
  maps[mask > 0] = 0.9
  seen = by_hand.with_maps(maps, mask, "ab")
  asked = ["aupro", "boxes", "surface", "lesions"]
  seen.calibration, (numbers, intervals, notes) = None, ({}, {}, {})
  scan_measures.measure(seen, asked, numbers, intervals, notes)
  assert set(numbers) == {"aupro"} and "aupro" in intervals
  assert notes == dict.fromkeys(asked[1:], "no validation split has set a threshold")
  monkeypatch.setattr(scan_measures, "_BYTES", 2 * 8 * 2 * detection.CODES - 1)
  many, intervals, notes = measured(seen, "aupro")
  assert many == numbers and not intervals and notes == {"aupro interval": "2 patients are too many for it"}
  seen.overlap = None
  _, _, notes = measured(seen, "aupro", "boxes")
  assert notes == dict.fromkeys(asked[:2], "the split has no masks")
  notes = {}
  for label, calibration, reason in (
      ([0, 1], {}, "brier"), ([-1, -1], {"probability": [1.0, 0.0]}, "brier"),
      ([0, 0], {"trivial": {"up": 1}}, "trivial_scores"), ([0, 1], {}, "trivial_scores")):
    of = collected(by_hand.evaluator([0.0, 1.0], label, "ab", calibration=calibration),
                   ("probability" if reason == "brier" else "trivial",))
    numbers, notes = {}, {}
    (of._probabilities if reason == "brier" else of._trivial_scores)(numbers, notes)
    assert not numbers and reason in notes, (label, reason)
