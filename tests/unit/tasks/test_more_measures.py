"""What config.eval.measures adds to an evaluation: known maps, numbers that are known before."""

import csv
import json

import numpy as np
import pytest

from medae_jax import evaluate
from medae_jax.core.errors import UserError
from medae_jax.metrics import similarity
from medae_jax.tasks.anomaly import findings
from tests.unit import known_maps

EVERY = ("similarity", "aupro", "boxes", "surface", "lesions", "probability")


def volumes(rng, n=4):
  """n patients of three slices; every second has a lesion in two slices, found but for the first."""
  image = rng.uniform(0, 0.15, (3 * n, 8, 8, 1))
  mask = np.zeros_like(image)
  metas = known_maps.metas([f"p{i // 3}" for i in range(3 * n)])
  for p in range(0, n, 2):
    mask[3 * p:3 * p + 2, 2:5, 2:5] = 1
    if p:
      image[3 * p:3 * p + 2, 2:5, 2:6] = 0.9      # a column too wide
  image[0, 7, 7] = 0.95                           # a false candidate of the missed patient
  for meta in metas:
    meta.update(voxel_mm=[3.0, 1.0, 2.0], finding="tumour|oedema" if meta["patient"] == "p0" else "tumour")
  return {"image": image, "mask": mask}, metas


@pytest.fixture(scope="module")
def found(tmp_path_factory):
  folder = tmp_path_factory.mktemp("measures")
  rng = np.random.default_rng(0)
  data = known_maps.save(folder / "d.npz", val=volumes(rng), test=volumes(rng))
  c = known_maps.config(data)
  c.eval.update(measures=EVERY, bootstrap=50, surface_tolerance=1.5)
  run = known_maps.write(folder / "run", c)
  evaluate.evaluate(run)
  return run, np.load(data)


def test_scan_by_scan_measures(found):
  run, _ = found
  result = json.loads((run / "evaluation" / "test.json").read_text())
  cut = result["val_threshold"]
  assert 0.14 < cut < 0.9
  # Lesions of two slices are one; patient 0's is missed, patient 2's found, one false candidate in 4 scans.
  assert result["n_lesions"] == 2 and result["lesion_sensitivity"] == 0.5
  assert result["false_positives_per_scan"] == 0.25 and result["lesion_precision"] == 0.5
  # The surface lies one column of 2 mm too far on one side; patient 0's nearest mark is far off.
  assert result["hd95_mm"] > 2 and "hd95_px" not in result and 0 < result["surface_dice"] < 1
  # Boxes: slices of patient 2 by 9 of 12 pixels, those of patient 0 not at all.
  assert result["box_iou"] == pytest.approx(0.75 / 2) and result["box_recall_50"] == 0.5
  assert result["pointing_game"] == 0.5 and 0 < result["aupro"] < 1
  for name in ("aupro", "box_iou", "surface_dice", "lesion_sensitivity"):
    low, high = result["ci95"][name]
    assert low <= result[name] <= high, name


def test_reconstructions_of_normal_and_abnormal_images(found):
  run, arrays = found
  result = json.loads((run / "evaluation" / "test.json").read_text())
  image, ill = arrays["test/image"], arrays["test/mask"].any((1, 2, 3))
  recon = np.zeros_like(image)  # of the known method: image minus its map, which is the image
  for suffix, rows in (("", ~ill), ("_abnormal", ill)):
    assert result[f"recon_mae{suffix}"] == pytest.approx(image[rows].mean(), rel=1e-5)
    assert result[f"recon_mse{suffix}"] == pytest.approx((image[rows] ** 2).mean(), rel=1e-5)
    want = float(similarity.ssim(image[rows], recon[rows]).mean())
    assert result[f"recon_ssim{suffix}"] == pytest.approx(want, abs=1e-5)


def test_probabilities_come_from_val(found):
  run, _ = found
  result = json.loads((run / "evaluation" / "test.json").read_text())
  slope, _ = json.loads((run / "calibration.json").read_text())["probability"]
  assert slope > 0 and 0 < result["brier"] < 0.25 and 0 <= result["ece"] < 1 and 0 < result["p_value_ks"] <= 1


def test_findings_have_a_table_with_both_intervals(found):
  run, _ = found
  result = json.loads((run / "evaluation" / "test.json").read_text())
  assert {k: v["n"] for k, v in result["findings"].items()} == {"tumour": 4, "oedema": 2}
  assert result["findings"]["tumour"]["auroc"] == pytest.approx(result["image_auroc"])
  assert result["ci95_delong"]["image_auroc"] == pytest.approx(result["findings"]["tumour"]["ci95_delong"])
  with open(run / "evaluation" / "test_findings.csv", newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  assert [r["finding"] for r in rows] == ["oedema", "tumour"]
  assert all(float(r["auroc_low"]) <= float(r["auroc"]) <= float(r["auroc_high"]) for r in rows)
  assert findings.names_of({"kind": "deer"}) == ["deer"] and findings.names_of({}) == []


def test_nothing_is_asked_for_by_default_and_reasons_are_said(tmp_path):
  parts, metas = volumes(np.random.default_rng(1))
  for meta in metas:
    del meta["voxel_mm"], meta["finding"]
  labels = {"image": parts["image"], "label": parts["mask"].any((1, 2, 3))}
  c = known_maps.config(known_maps.save(tmp_path / "d.npz", val=(parts, metas), test=(labels, metas)))
  run = known_maps.write(tmp_path / "run", c)
  plain = evaluate.evaluate(run)["test"]
  assert not {"aupro", "brier", "recon_mae", "findings", "lesion_sensitivity"} & set(plain)
  both = evaluate.evaluate(run, {"eval.measures": EVERY})
  assert {"aupro", "boxes", "surface", "lesions"} <= set(both["test"]["notes"])
  assert both["val"]["hd95_px"] > 0 and "mm" in both["val"]["notes"]["hd95_mm"]


def test_what_cannot_be_measured_is_refused(tmp_path):
  parts = volumes(np.random.default_rng(1))
  c = known_maps.config(known_maps.save(tmp_path / "d.npz", val=parts))
  run = known_maps.write(tmp_path / "run", c)
  with pytest.raises(UserError, match=r"eval\.measures=.*similarity"):
    evaluate.evaluate(run, {"eval.measures": ("lpips",)})
  with pytest.raises(UserError, match="eval.trunk_weights"):
    evaluate.evaluate(run, {"eval.measures": ("perceptual",)})
  result = evaluate.evaluate(run, {"eval.measures": ("perceptual",), "eval.trunk": "vgg16",
                                   "eval.trunk_weights": "random:0", "eval.trunk_layers": ("r12",)})["val"]
  assert 0 < result["recon_perceptual"] < 4 and 0 < result["recon_perceptual_abnormal"] < 4
