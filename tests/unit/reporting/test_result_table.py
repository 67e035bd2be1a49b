"""The table of an evaluation and of a data set's counts, as the terminal prints them."""

import os

import pytest

from medae_jax.core import files
from medae_jax.core.errors import UserError
from medae_jax.reporting import result_table, results, text_table

RESULT = {
    "dataset": "brains", "synthetic": False, "split": "val", "n_images": 1200, "n_patients": 3,
    "pixel_ap": 0.5, "psnr": 31.25, "mae_inside": 0.2, "image_auroc": None,
    "val_threshold": 0.125, "dice_best_threshold": 0.5, "own_number": 7.0,
    "ci95": {"pixel_ap": [0.4, 0.6], "pixel_ap_minus_baseline": [-0.1, 0.3]}, "checkpoint": {"step": 4},
    "baseline": {"what": "intensity", "pixel_ap": 0.3, "pixel_ap_median5": 0.35, "mae_inside": 0.25},
    "model_better": None, "model_better_by": {"metric": "pixel_ap", "difference": 0.15}}


def test_a_row_a_number_with_interval_and_the_better_baseline():
  rows = {r["key"]: r for r in result_table.rows(RESULT)}
  assert list(rows) == ["pixel_ap", "psnr", "mae_inside", "val_threshold", "dice_best_threshold",
                        "n_images", "n_patients", "own_number"]
  assert not any(r["further"] for r in rows.values())
  ap = rows["pixel_ap"]
  assert (ap["metric"], ap["value"], ap["low"], ap["high"], ap["baseline"]) == (
      "Pixel average precision", 0.5, 0.4, 0.6, 0.35)
  assert rows["mae_inside"]["better"] == "lower" and rows["mae_inside"]["baseline"] == 0.25
  assert rows["own_number"]["metric"] == "own number"  # of a method of one's own


def test_text_is_aligned_and_says_what_is_shown():
  lines = result_table.text({"val": RESULT}).splitlines()
  assert lines[0] == "Validation: brains (1,200 images, 3 patients)"
  heads, ap, psnr = lines[1:4]
  for word in ("value", "95 % interval", "baseline"):  # numbers end below the end of their head
    end = heads.index(word) + len(word)
    assert ap[:end].split()[-1] == {"value": "0.500", "95 % interval": "0.600", "baseline": "0.350"}[word]
  assert psnr.split()[:3] == ["PSNR", "↑", "31.250"] and "dB" in psnr
  assert "threshold of the map 0.125; threshold of the best Dice 0.500" in "\n".join(lines)
  assert lines[-1].strip() == (
      "The model is not shown to be better than a plain intensity threshold (the interval holds 0): Pixel "
      "average precision differs by 0.150, 95 % interval -0.100 to 0.300.")
  assert "(no interval was computed): Pixel" in result_table.sentence({**RESULT, "ci95": {}})
  unknown = {**RESULT, "model_better_by": {"metric": "image_auroc", "difference": None}}
  assert result_table.sentence(unknown) == (
      "Nothing here to compare with a plain intensity threshold: Image AUROC is not known.")
  worse = {**RESULT, "model_better": False, "synthetic": True}
  assert "WORSE than" in result_table.sentence(worse) and "SYNTHETIC DATA" in result_table.text({"a": worse})


def test_without_baseline_intervals_and_verdict():
  (alone,) = result_table.rows({"scan_false_alarms": 0.05, "baseline": {"pixel_ap": 0.3}})
  assert (alone["value"], alone["baseline"], alone["better"]) == (0.05, None, "lower")
  text = result_table.text({"test": {"dataset": "x", "dice": 0.25}})
  assert text.splitlines() == ["Test: x", "  metric                    value  95 % interval  threshold",
                               "  Dice, mean over images ↑  0.250                 probability 0.5",
                               "  ↑ higher is better, ↓ lower is better"]


def test_one_dice_is_shown_and_its_further_forms_are_counted():
  """Dice stood there in six ways."""
  forms = {"dice_best": 0.6, "dice_best_any": 0.6, "dice_components": 0.6, "dice_best_threshold": 0.4}
  text = result_table.text({"test": {**RESULT, **forms, "dice_val_threshold": 0.5}})
  assert text.count("Dice") == 2 and "Dice at the validation threshold" in text and "oracle" not in text
  assert "3 further forms of Dice: test.json, report.html" in text
  assert "Best Dice (oracle)" in result_table.text({"test": {**RESULT, **forms}})  # where it is the only one


def test_synthetic_data_is_named_once_behind_all_splits():
  text = result_table.text({s: {**RESULT, "synthetic": True} for s in ("val", "test")})
  assert text.count("SYNTHETIC") == 1 and text.endswith("say nothing about patients.")


def test_single_images_are_not_called_scans():
  found = {"dataset": "x", "n_images": 3, "n_abnormal_images": 1, "n_normal_scans": 2, "n_abnormal_scans": 1,
           "image_auroc": 0.5, "scan_auroc": 0.5}
  assert "normal scans" in result_table.text({"test": {**found, "scan_unit": "scan"}})
  text = result_table.text({"test": {**found, "scan_unit": "image"}})
  assert text.startswith("Test: x (3 images, 1 abnormal images)") and "can" not in text and "3-D" not in text


def test_a_line_of_numbers_for_the_log():
  found = {"weights_positive": [1.70471, 0.0], "image_auroc": {"mean": 0.12345}, "n": 1200}
  assert text_table.words(found) == (
      "weights positive [1.7, 0], image auroc (mean 0.123), n 1200")


def test_counts_of_a_data_set():
  described = {"name": "own", "splits": {"train": {"normal": 1234, "abnormal": 0, "crc": "ab"},
                                         "test": {"normal": 5, "patients": 2}},
               "protocol": "labelled folder", "preparation": {"size": 64}}
  assert text_table.counts(described) == [
      "split  normal  abnormal  patients", "train   1,234         0         -",
      "test        5         -         2", "protocol: labelled folder"]
  assert text_table.counts({"lists": {"train": {"images": 3}}})[0] == "list   images"
  assert text_table.counts({"name": "x"}) == []


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_table_that_is_no_file_is_named_and_not_waited_for(tmp_path, make):
  """Reading and writing: a pipe has no end, and over a folder only half of the files would be written."""
  (tmp_path / "evaluation").mkdir()
  make(tmp_path / "evaluation" / "val.csv")
  with pytest.raises(UserError, match="val.csv is no file but a folder, a pipe, a device or a link"):
    results.Evaluation(RESULT, tmp_path).cases()
  assert results.Evaluation(RESULT, tmp_path).cases("images") == []
  if make is os.mkdir:
    with pytest.raises(UserError, match="val.csv is a folder where a file is to be written"):
      files.check_writable((tmp_path / "evaluation").glob("val*.*"))
