"""What every number of an evaluation is called, its unit, which direction is good, and what it means.

One dictionary for all evaluators, tables, pages and loggers: a measure gets its line here and nowhere else.
`tests/unit/metrics/test_dictionary.py` asks for a line for each number that an evaluator returns.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

SHARE, DB, LEVEL, PIXELS = "share, 0 to 1", "dB", "grey level, 0 to 1", "pixels"
# Rules that make a threshold; "" = the measure has none.
NO, ORACLE, VAL, HALF = "", "chosen on this split: a bound", "fixed on validation", "probability 0.5"
HIGHER, LOWER, NEUTRAL = "higher", "lower", ""


@dataclasses.dataclass(frozen=True)
class Metric:
  """One measure.

  Attributes:
    name: as a page shows it. unit: SHARE, DB, ... or "" for none.
    better: HIGHER or LOWER; NEUTRAL for what is neither good nor bad.
    meaning: one sentence without a full stop. threshold: the rule of the threshold behind it.
    kind: "result", "count" (how many there were) or "setting" (a threshold, a choice).
    source: the paper or the public code that defines it.
  """

  name: str
  unit: str = ""
  better: str = NEUTRAL
  meaning: str = ""
  threshold: str = NO
  kind: str = "result"
  source: str = ""

  @property
  def arrow(self) -> str:
    """Direction in a character: the page says it in words, too."""
    return {HIGHER: "↑", LOWER: "↓"}.get(self.better, "")


def _good(name, meaning, threshold=NO, source="", unit=SHARE):
  return Metric(name, unit, HIGHER, meaning, threshold, source=source)


def _bad(name, meaning, threshold=NO, source="", unit=SHARE):
  return Metric(name, unit, LOWER, meaning, threshold, source=source)


def _count(name, meaning="", unit=""):
  return Metric(name, unit, meaning=meaning, kind="count")


def _setting(name, meaning, threshold=NO):
  return Metric(name, meaning=meaning, threshold=threshold, kind="setting")


# In the order in which tables show them.
METRICS: dict[str, Metric] = {
    # anomaly: pixels
    "pixel_ap": _good("Pixel average precision", "over all pixels of the split, background included",
                      source="Kascenas, MIDL 2022"),
    "pixel_auroc": _good("Pixel AUROC", "flattered by the many easy background pixels: prefer the AP"),
    "dice_val_threshold": _good("Dice at the validation threshold", "the honest overlap", VAL),
    "dice_val_threshold_components": _good(
        "Dice at the validation threshold, small components removed", "in 3-D where slices make a scan", VAL),
    "dice_patients_mean": _good("Dice, mean over patients",
                                "patients with lesions, before the component filter", VAL),
    "dice_best": _good("Best Dice (oracle)", "of a grid of thresholds", ORACLE, "Kascenas, MIDL 2022"),
    "dice_best_any": _good("Best Dice of any threshold (oracle)", "of all float16 values", ORACLE),
    "dice_components": _good(
        "Best Dice (oracle), small components removed", "in 3-D where slices make a scan", ORACLE),
    # anomaly: images and scans
    "image_auroc": _good("Image AUROC", "an abnormal image scores higher than a normal one"),
    "image_ap": _good("Image average precision", "its floor is the share of abnormal images"),
    "image_sensitivity": _good("Image sensitivity", "abnormal images called abnormal", VAL),
    "image_specificity": _good("Image specificity", "normal images called normal", VAL),
    "scan_auroc": _good("Scan AUROC", "whole scans by the highest score of their slices"),
    "scan_sensitivity": _good("Abnormal scans found", "called abnormal at the threshold for scans", VAL),
    "scan_false_alarms": _bad("Normal scans called abnormal", "at the same threshold", VAL),
    "image_fpr95": _bad("False-positive rate at 95 % sensitivity", "of the image scores", ORACLE),
    "image_fpr99": _bad("False-positive rate at 99 % sensitivity", "of the image scores", ORACLE),
    # anomaly: config.eval.measures
    "aupro": _good("AUPRO", "overlap with each lesion, up to 30 % false-positive pixels",
                   source="Bergmann et al., IJCV 2021"),
    "pointing_game": _good("Pointing game", "the highest pixel of the map lies in the finding",
                           source="Zhang et al., ECCV 2016"),
    "box_iou": _good("Box IoU", "best box of the map for each box of the finding", VAL),
    "box_recall_50": _good("Boxes found at IoU 0.5", "mean over images with a finding", VAL),
    "lesion_sensitivity": _good("Lesions found", "overlapped by what is marked", VAL),
    "lesion_precision": _good("Lesions among what is marked", "found lesions and false marks", VAL),
    "false_positives_per_scan": _bad("False marks a scan", "components that overlap no lesion", VAL, unit=""),
    "froc_mean": _good("FROC", "mean sensitivity at 1/8 to 8 false marks a scan", VAL,
                       "Setio et al., MedIA 2017"),
    "surface_dice": _good("Surface Dice", "surfaces within config.eval.surface_tolerance", VAL,
                          "Nikolov et al. 2018"),
    "hd95_mm": _bad("HD95", "95 % Hausdorff distance of scans with lesions", VAL, unit="mm"),
    "hd95_px": _bad("HD95", "95 % Hausdorff distance; mm are not known", VAL, unit=PIXELS),
    "brier": _bad("Brier score", "of the pixels' probabilities, or of a curve fitted on validation", VAL,
                  "Brier 1950", unit=""),
    "ece": _bad("Expected calibration error", "of the same probabilities, 15 bins", VAL, "Guo et al. 2017"),
    "p_value_ks": _bad("Distance of p-values from uniform", "normal scans, Kolmogorov-Smirnov", VAL, unit=""),
    **{f"recon_{k}{s}": make(f"{name} of the reconstruction, {who} images", what, unit=unit)
       for s, who in (("", "normal"), ("_abnormal", "abnormal"))
       for k, name, what, unit, make in (
           ("mae", "Mean absolute error", "", LEVEL, _bad), ("mse", "Mean squared error", "", "", _bad),
           ("ssim", "SSIM", "window 7", "index, at most 1", _good),
           ("perceptual", "Perceptual distance", "in a frozen network, no LPIPS weights", "", _bad))},
    # segmentation
    "dice_pooled": _good("Dice, pixels of all images together", "large lesions count more", HALF),
    "dice": _good("Dice, mean over images", "", HALF),
    "jaccard": _good("Jaccard index, mean over images", "", HALF),
    "jaccard_val_threshold": _good("Jaccard index at the validation threshold", "mean over images", VAL),
    "sensitivity": _good("Pixel sensitivity", "lesion pixels found", HALF),
    "specificity": _good("Pixel specificity", "other pixels left alone", HALF),
    # restoration
    "psnr": _good("PSNR", "of marked frames against their clean partner; 100 dB = equal", unit=DB),
    "ssim": _good("SSIM", "structural similarity of marked frames, window 11", unit="index, at most 1",
                  source="Wang et al., IEEE TIP 2004"),
    "mae_inside": _bad("Error under the marks", "mean absolute difference from the clean frame", unit=LEVEL),
    "psnr_inside": _good("PSNR under the marks", "drawn pixels alone", unit=DB),
    "removed_share": _good("Marks removed", "drawn pixels that came back within config.eval.residual_level"),
    "residual_share": _bad("Marks left", "the other drawn pixels"),
    "mae_outside": _bad("Error beside the marks", "pixels that nobody drew on", unit=LEVEL),
    "psnr_outside": _good("PSNR beside the marks", "100 dB = untouched", unit=DB),
    "untouched_changed_share": _bad("Pixels changed beside the marks", "by anything at all"),
    "identity_mae": _bad("Error on frames without marks", "which should come back as they are", unit=LEVEL),
    "identity_changed_share": _bad("Pixels changed on frames without marks", "by anything at all"),
    "marks_precision": _good("Precision of the marks found", "found pixels that were drawn", VAL),
    "marks_recall": _good("Recall of the marks found", "drawn pixels that were found", VAL),
    "marks_dice": _good("Dice of the marks found", "found against drawn pixels", VAL),
    "drawn_share": Metric("Pixels drawn on", SHARE, meaning="of all pixels of the split"),
    # thresholds
    "val_threshold": _setting("Threshold of the map", "score above it = marked", VAL),
    "threshold": _setting("Threshold of the marks", "evidence above it = a mark", VAL),
    "dice_best_threshold": _setting("Threshold of the best Dice", "never to be used on new data", ORACLE),
    # counts
    "n_images": _count("Images"),
    "n_patients": _count("Patients", "or single images, where the data set names no patients"),
    "n_abnormal_images": _count("Abnormal images"),
    "n_lesion_pixels": _count("Lesion pixels", unit=PIXELS),
    "n_normal_scans": _count("Normal scans", "whole scans, or single images"),
    "n_abnormal_scans": _count("Abnormal scans", "likewise"),
    "n_lesions": _count("Lesions", "components of the masks"),
    "n_marked": _count("Frames with marks"),
    "n_empty_masks": _count("Images with an empty mask", "their Dice is 1 where nothing is found"),
}
# What an evaluation says of itself; no measure.
ABOUT = frozenset({
    "dataset", "synthetic", "split", "ci95", "baseline", "baseline_name", "baselines", "notes", "versions",
    "checkpoint", "device", "date", "seconds", "model_better", "model_better_by", "variant", "trunk",
    "scan_unit", "ci95_delong", "findings", "against", "fill", "command", "commit", "seed"})

# Further forms of a measure, which tables show on demand where they show the measure itself.
_FORMS = {"dice_val_threshold": (
    "dice_val_threshold_components", "dice_patients_mean", "dice_best", "dice_best_any", "dice_components",
    "dice_best_threshold")}
# What repeats another measure where every image stands alone ("scan_unit" of an evaluation is "image").
_REPEATED = {"image_auroc": ("scan_auroc",), "image_sensitivity": ("scan_sensitivity",),
             "image_specificity": ("scan_false_alarms",), "n_images": ("n_normal_scans", "n_abnormal_scans")}

# Forms of a baseline, as endings of its keys, and how they differ from the plain one.
BASELINES = {"": "", "_median5": "after a 5x5 median",
             "_guided": "after a 5x5 median and the model's guided filter"}


def of_baseline(baseline: Mapping[str, Any], key: str) -> dict[str, Any]:
  """{ending of BASELINES: value} of a measure in the "baseline" of an evaluation, those that it has."""
  return {ending: baseline[key + ending] for ending in BASELINES if key + ending in baseline}


def further(result: Mapping[str, Any]) -> dict[str, str]:
  """{key: measure of which it is a further form} of an evaluation, for those whose measure is known there."""
  return _behind(result, _FORMS)


def repeated(result: Mapping[str, Any]) -> dict[str, str]:
  """{key: measure that says the same} of an evaluation of single images; {} of scans."""
  return _behind(result, _REPEATED) if result.get("scan_unit") == "image" else {}


def _behind(result, table):
  return {key: main for main, keys in table.items() if result.get(main) is not None
          for key in keys if key in result}


def metric(key: str) -> Metric:
  """The line of a measure; of one that has none its key in words, without direction."""
  if key in METRICS:
    return METRICS[key]
  return Metric(key.removeprefix("n_").replace("_", " "), kind="count" if key.startswith("n_") else "result")


def in_order(keys) -> list[str]:
  """Keys of measures as tables show them: those of the dictionary in its order, then the others."""
  keys = list(dict.fromkeys(keys))
  return [k for k in METRICS if k in keys] + [k for k in keys if k not in METRICS and k not in ABOUT]


def said(difference, interval, better: str = HIGHER) -> str:
  """A difference in words: "better", "worse", or "no difference shown" where its interval holds zero.

  Args:
    difference: first minus second, None or NaN where it is not known.
    interval: [low, high] of it, None where there is none: then nothing is shown.
    better: direction of the measure.
  """
  if difference is None or difference != difference or not interval or None in interval:
    return "no difference shown"
  low, high = interval if better != LOWER else (-interval[1], -interval[0])
  return "better" if low > 0 else "worse" if high < 0 else "no difference shown"
