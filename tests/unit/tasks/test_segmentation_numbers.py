"""Segmentation's numbers by hand: Dice and Jaccard per image, thresholds of val, intervals over groups."""

import ml_collections
import numpy as np
import pytest

from medae_jax.reporting import panels
from medae_jax.tasks.segmentation import evaluator


class _Images:
  """Given masks [n,H,W] with a group each."""
  name, synthetic = "synthetic_masks", True

  def __init__(self, masks, groups):
    self._masks, self._groups = np.asarray(masks, bool), groups

  def split(self, name):
    return self

  def __len__(self):
    return len(self._masks)

  def native(self, i):
    mask = self._masks[i]
    return {"image": np.zeros((*mask.shape, 3), np.uint8), "mask": ~mask, "truth": mask}

  def meta(self, i):
    return {"id": str(i), "group": self._groups[i], "path": ""}


def judged(prob, masks, groups="abcdef", calibration=None, split="test", pad=0, **fields):
  """The evaluator after one batch with `pad` padding rows at its end."""
  config = ml_collections.ConfigDict({"eval": {"bootstrap": 200, "overlays": 0, **fields}})
  judge = evaluator.Evaluator(config, _Images(masks, groups), split, calibration)
  prob = np.concatenate([prob, np.repeat(prob[-1:], pad, 0)])
  n = len(masks)
  judge.update({"valid": np.arange(n + pad) < n,
                "position": np.minimum(np.arange(n + pad), n - 1)},
               {"logit": np.log(prob / (1 - prob))[..., None].astype(np.float32)})
  return judge


def halves(levels, size=8):
  """Probability maps that have `level` in the left half and 0.02 elsewhere."""
  prob = np.full((len(levels), size, size), 0.02)
  for i, level in enumerate(levels):
    prob[i, :, :size // 2] = level
  return prob


MASKS = np.zeros((3, 8, 8), bool)
MASKS[0, :, :4], MASKS[1, :, :2] = True, True       # the whole left half; a half of it; nothing


def test_means_are_over_images_and_empty_pairs_count_as_one():
  found = judged(halves([0.9, 0.9, 0.02]), MASKS, pad=2).result()
  assert found["dice"] == pytest.approx((1 + 2 / 3 + 1) / 3)
  assert found["jaccard"] == pytest.approx((1 + 1 / 2 + 1) / 3)
  assert found["dice_pooled"] == pytest.approx(2 * 48 / (64 + 48))
  assert found["sensitivity"] == 1.0
  assert found["specificity"] == pytest.approx(1 - 16 / (192 - 48))
  assert found["n_empty_masks"] == 1 and found["against"] == "expert masks"
  missed = judged(halves([0.9, 0.9, 0.9]), MASKS).result()
  assert missed["dice"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_where_no_expert_has_drawn_the_noisy_mask_is_what_counts(monkeypatch):
  monkeypatch.setattr(_Images, "native", lambda self, i: {
      "image": np.zeros((8, 8, 3), np.uint8), "mask": self._masks[i],
      "truth": None if i else ~self._masks[i]})
  judge = judged(halves([0.9, 0.9, 0.9]), MASKS)
  assert [row["mask_pixels"] for row in judge.rows()] == [32, 16, 0] and judge.expert.tolist() == [1, 0, 0]
  assert [row["dice"] for row in judge.rows()] == [0, pytest.approx(2 / 3), 0]
  assert judge.result()["against"] == "the noisy masks themselves"


def test_threshold_is_the_best_of_val_and_is_used_as_it_is():
  val = judged(halves([0.3, 0.3, 0.2]), MASKS, split="val")
  assert val.calibrate()["threshold"] == pytest.approx(0.29)      # nearest to one half of those that do
  calibration = {"threshold": 0.29}
  found = judged(halves([0.9, 0.9, 0.295]), MASKS, calibration=calibration).result()
  assert found["val_threshold"] == pytest.approx(0.29)
  assert found["dice_val_threshold"] == pytest.approx((1 + 2 / 3 + 0) / 3)
  assert found["dice"] == pytest.approx((1 + 2 / 3 + 1) / 3)      # at one half
  assert found["dice_best"] == pytest.approx((1 + 2 / 3 + 1) / 3)


def test_a_pixel_is_found_above_the_threshold():
  counts = evaluator.overlap(np.array([[0.0, 4.0, -4.0]]), np.array([[True, True, False]]))
  assert counts[evaluator.HALF].tolist() == [1, 1]                # logit 0 is not above one half
  assert counts[0].tolist() == [3, 2] and counts[-1].tolist() == [0, 0]


def test_intervals_are_over_groups():
  """Two groups: in a quarter of the resamples each is alone, so that the ends are their means."""
  masks = np.repeat(MASKS[:1], 10, 0)
  prob = halves([0.9] * 5 + [0.02] * 5)
  found = judged(prob, masks, groups="a" * 5 + "b" * 5).result()["ci95"]
  assert found["dice"] == [0.0, 1.0] and found["jaccard"] == [0.0, 1.0]


def test_logits_are_resized_to_the_file():
  logits = np.array([[-4.0, 4.0], [-4.0, 4.0]])
  full = evaluator.resize_logits(logits, (6, 8))
  assert full.shape == (6, 8) and (full[:, :4] < 0).all() and (full[:, 4:] > 0).all()


def test_surfaces_lesions_and_probabilities_where_they_are_asked_for():
  assert not {"hd95_px", "brier", "n_lesions"} & set(judged(halves([0.9, 0.9, 0.02]), MASKS).result())
  judge = judged(halves([0.9, 0.9, 0.02]), MASKS, pad=2, measures=("surface", "lesions", "probability"),
                 surface_tolerance=1.0)
  found = judge.result()
  # Image 0 is exact; in image 1 the surface of 2 columns lies 2 columns beside that of 4; image 2 has none.
  assert found["hd95_px"] == pytest.approx((0 + 2) / 2) and found["ci95"]["hd95_px"] == [0, 2]
  assert 0.5 < found["surface_dice"] < 1
  assert (found["n_lesions"], found["lesion_sensitivity"], found["false_positives_per_scan"]) == (2, 1, 0)
  p, y = halves([0.9, 0.9, 0.02]), MASKS
  assert found["brier"] == pytest.approx(((p - y) ** 2).mean(), rel=1e-5)
  high = p > 0.5
  want = abs(0.9 - y[high].mean()) * high.mean() + abs(0.02 - y[~high].mean()) * (~high).mean()
  assert found["ece"] == pytest.approx(want, rel=1e-5)


def test_rows_curves_and_pictures_are_those_of_their_own_image():
  judge = judged(halves([0.9, 0.3, 0.02]), MASKS, groups="aab", calibration={"threshold": 0.2})
  columns = ("id", "group", "mask_pixels", "found_pixels", "dice", "dice_val_threshold")
  assert [[row[k] for k in columns] for row in judge.rows()] == [
      ["0", "a", 32, 32, 1, 1], ["1", "a", 16, 0, 0, pytest.approx(2 / 3)], ["2", "b", 0, 0, 1, 1]]
  assert "dice_val_threshold" not in judged(halves([0.9] * 3), MASKS).rows()[0]
  found = judge.curves()
  assert found["unit"] == "groups" and judged(halves([0.9] * 3), MASKS).curves()["unit"] == "images"
  assert [(p["name"], p["value"]) for p in found["dots"]["points"]] == [("0", 1), ("1", 0), ("2", 1)]
  at = dict(zip(np.round(found["thresholds"]["x"], 2), found["thresholds"]["y"]))
  assert at[0.25] == pytest.approx((1 + 2 / 3 + 1) / 3) and at[0.35] == pytest.approx(2 / 3)
  assert at[0.01] == pytest.approx((2 * 32 / 96 + 2 * 16 / 80 + 0) / 3)
  assert found["thresholds"]["threshold"] == 0.2
  shown = judge.choose()
  assert shown.tolist() == [1, 0, 2]
  prob = halves([0.9, 0.3, 0.02])[shown]
  judge.show({"position": np.array([0, 1, 2, 2]), "valid": np.array([True, True, True, False])},
             {"logit": np.log(prob / (1 - prob))[..., None].astype(np.float32)[[0, 1, 2, 2]]}, None)
  entries = judge.gallery()
  assert [(e["title"], e["verdict"], *e["facts"]) for e in entries] == [
      ("1", "missed", "Dice 0.00", "mask 16 px, found 0 px"),
      ("0", "", "Dice 1.00", "mask 32 px, found 32 px"),
      ("2", "", "Dice 1.00", "mask 0 px, found 0 px")]
  brightness = [e["cells"][1]["picture"][:, :90].mean() for e in entries]  # heat of the left half
  assert brightness[1] > brightness[0] > brightness[2]
  (panel,) = judge.panels().values()
  assert (panel == panels.WARNING).all(-1).any()                # SYNTHETIC DATA, in red
  judge.dataset.synthetic = False
  assert not (judge.panels()["panel"] == panels.WARNING).all(-1).any()


def test_noisy_masks_are_ranked_beside_their_numbers():
  """The label of each image is the opposite of its expert mask: no pixel in common."""
  judge = judged(halves([0.9, 0.3, 0.02]), MASKS, split="noisy", overlays=1)
  found = judge.result()["annotation_quality"]
  assert found["mean_dice_label_expert"] == 0 and found["ranked_by"] == "dice_label_prediction"
  (name, rows), = judge.tables().items()
  # Found: the whole mask of 0, so nothing of its label; none of the others.
  assert name == "quality" and [(r["id"], r["dice_label_prediction"]) for r in rows] == [
      ("0", 0), ("1", 0), ("2", 0)]
  assert judge.choose().tolist() == [0, 2]      # the most suspicious one and the most trusted one
  judge.show({"position": np.array([0, 1]), "valid": np.array([True, True])},
             {"logit": np.zeros((2, 8, 8, 1), np.float32)}, None)
  assert set(judge.panels()) == {"overlays"} and [e["title"] for e in judge.gallery()] == ["1. 0", "3. 2"]
  assert judged(halves([0.9] * 3), MASKS).tables() == {}


@pytest.mark.parametrize("split, said", [("clean", "clean (training images)"), ("test", "test")])
def test_a_picture_says_where_its_images_are_those_of_training(split, said, monkeypatch):
  titles = []
  monkeypatch.setattr(evaluator.panels, "grid", lambda cells, heads, said, title, why: titles.append(title))
  judge = judged(halves([0.9, 0.3, 0.02]), MASKS, split=split)
  judge.choose()
  judge.show({"position": np.array([0]), "valid": np.array([True])},
             {"logit": np.zeros((1, 8, 8, 1), np.float32)}, None)
  judge.panels()
  assert titles == [f"synthetic_masks, {said}: from the worst to the best Dice"]
