"""Pages of a run, of predictions and of a notebook, from results that are written by hand."""

import numpy as np

from medae_jax.core import files
from medae_jax.reporting import display, gallery, panels, predictions, provenance, result_table, results
from medae_jax.reporting.run import page
from tests.approved import shown

PROVENANCE = {"command": "python launch.py --mode=evaluate --workdir=r", "commit": "0123456789ab+",
              "device": "one device", "date": "2026-01-02 03:04", "versions": {"jax": "1.2", "numpy": "3.4"},
              "checkpoint": {"which": "best", "step": 1200}}
CONFIG = {"seed": 7, "method": {"name": "dae", "score": {"image_score": "max"}}, "data": {"name": "squares"}}
BASE = {"what": "intensity", "pixel_ap": 0.375, "pixel_ap_median5": 0.40625, "pixel_auroc": 0.75,
        "image_auroc": 0.84375, "image_auroc_median5": 0.8125, "hd95_mm": 25.0, "hd95_mm_median5": 20.0}
TEST = {**PROVENANCE, "dataset": "squares & rings", "split": "test", "synthetic": True, "seconds": 12.5,
        "trunk": "vgg19, vgg19.pth", "variant": "demo", "seed": 3,
        "n_images": 1040, "n_patients": 8, "n_abnormal_images": 15, "n_lesion_pixels": 12345,
        "pixel_ap": 0.625, "pixel_auroc": 0.9375, "dice_val_threshold": 0.5625, "dice_patients_mean": 0.4375,
        "dice_val_threshold_components": 0.59375, "dice_best": 0.65625, "dice_best_threshold": 0.375,
        "val_threshold": 0.3125, "image_auroc": 0.8125, "image_ap": 0.71875, "image_sensitivity": 0.75,
        "image_specificity": 0.875, "scan_auroc": None, "hd95_mm": 12.5, "recon_mae": 0.0004,
        "own_number": 2048.0,
        "ci95": {"pixel_ap": [0.5, 0.6875], "image_auroc": [0.71875, 0.90625], "hd95_mm": [10.0, 15.25],
                 "pixel_ap_minus_baseline": [0.125, 0.3125], "image_auroc_minus_baseline": [-0.0625, 0.03125],
                 "image_sensitivity": [0.625, 1.0], "image_specificity": [0.8125, 0.90625]},
        "baseline": BASE, "model_better": True,
        "model_better_by": {"metric": "pixel_ap", "difference": 0.21875},
        "notes": {"scan_auroc": "no whole scans", "scan_sensitivity": "no whole scans",
                  "ci95": "few <patients>"},
        "findings": {"nodule": {"n": 8, "auroc": 0.75, "ap": 0.5, "fpr95": 0.25,
                                "ci95": {"auroc": [0.625, 0.875], "ap": [0.375, 0.625]},
                                "ci95_delong": [0.59375, 0.90625]},
                     "effusion": {"n": 3, "auroc": 0.6875, "ap": None, "fpr95": None}}}
VAL = {**PROVENANCE, "dataset": "squares & rings", "split": "val", "synthetic": False, "seconds": 3.5,
       "n_images": 20, "n_patients": 20, "pixel_ap": 0.25, "image_auroc": 0.5, "val_threshold": 0.3125,
       "baseline": {"pixel_ap": 0.5}, "model_better": False, "baseline_name": "the median filter",
       "model_better_by": {"metric": "pixel_ap", "difference": -0.25},
       "ci95": {"pixel_ap_minus_baseline": [-0.375, -0.125]}, "notes": {"scan_auroc": "no whole scans"}}
CURVE = {"x": [0, 0.25, 1], "y": [0, 0.75, 1], "low": [0, 0.5, 0.875], "high": [0.25, 0.875, 1]}
CURVES = {
    "unit": "patients", "groups": 8,
    "image": {"roc": CURVE, "pr": {"x": [0, 1], "y": [1, 0.375]}, "prevalence": 0.375},
    "pixel": {"pr": {**CURVE, "y": [1, 0.5, 0.125]}, "prevalence": 0.125},
    "scores": {"image": {"edges": [0, 0.5, 1, 2], "normal": [3, 1, 0], "abnormal": [0, 1, 4],
                         "unknown": [1, 0, 1], "threshold": 0.75},
               "scan": {"edges": [0, 1], "normal": [2], "abnormal": [0], "unknown": [0], "threshold": None}},
    "p_values": {"unit": "scan", "calibrated_on": 19, "normal": [0.05, 0.2, 0.6, 1.0],
                 "abnormal": [0.05, 0.1]}}
CALIBRATION = {
    "threshold": 0.3125, "threshold_rule": "best Dice", "image_threshold": 0.75,
    "image_threshold_rule": "5 %",
    "scan_threshold_rule": "needs more scans", "map_max": 2.0, "scan_scores": [1, 2, 3], "scan_unit": "scan",
    "score": {"image_score": "top1"},
    "score_fit": {"normal": 9, "abnormal": 4, "image_auroc": {"max": 0.5, "top1": 0.875, "mean": 0.75},
                  "pixel_ap_plain": 0.25, "pixel_ap_fitted": 0.375, "own_fact": 3}}


def picture(rows, columns, colours=3):
  """Every pixel and channel of its own."""
  return (np.arange(rows * columns * colours) * 5 % 251).astype(np.uint8).reshape(rows, columns, colours)


def _pictures():
  cells = [{"head": "image", "picture": np.repeat(picture(6, 9, 1), 3, -1)},
           {"head": panels.truth_name(True), "picture": picture(6, 9)}]
  rows = [("panel", "p3, slice 4", ["Dice 0.5", "score 0.7"], "found", ["R", "L"]),
          ("misses", "p<1>", [], panels.marked_below("slice"), []),
          ("false_alarms", "p2", ["score 0.9"], "false alarm", ["A", "P"]), ("overlays", "p4", [], "", [])]
  return [dict(zip(("part", "title", "facts", "verdict", "sides"), row), cells=cells) for row in rows]


def _write(folder, test, val, curves=(), calibration=None):
  evaluation = folder / "evaluation"
  for name, found in (("val", val), ("test", test)):
    if found:
      files.write_json(evaluation / f"{name}.json", found)
  for name, found in dict(curves).items():
    files.write_json(evaluation / f"curves/{name}.json", found)
  files.write_json(folder / "config.json", CONFIG)
  if calibration:
    files.write_json(folder / "calibration.json", calibration)
  return evaluation


def anomaly_page(folder):
  """Everything that the page of an anomaly run shows."""
  evaluation = _write(folder / "run", TEST, VAL, {"test": CURVES}, CALIBRATION)
  files.write_csv(evaluation / "test.csv", [
      {"patient": p, "lesion_pixels": n, "dice_val_threshold": d, "score_max": s}
      for p, n, d, s in (("p1", 30, 0.25, 3.0), ("p2", 0, 0.9, 2.0), ("p3", 7, 0.8125, 1.06251),
                         ("p4", 9, "", "x"))])
  files.write_csv(evaluation / "test_images.csv", [
      {"id": i, "label": a, "called_abnormal": b, "score": 0.5} for i, (a, b) in enumerate(
          [(1, 1)] * 6 + [(1, 0)] * 2 + [(0, 1)] * 1 + [(0, 0)] * 7 + [("", 1)])])
  gallery.write(evaluation, "test", _pictures())
  lines = [{"step": s, "train/loss": 100.0 / s, "val/loss": 2.0 + s, "train/images_per_second": 8.0}
           for s in (1, 2, 10)]
  files.write_bytes(folder / "run/metrics.jsonl", "".join(
      f"{files.json.dumps(line)}\n" for line in lines).encode())
  return shown.page(page.write(folder / "run").read_bytes())


def restoration_page(folder):
  """Of restoration: fillings, dots of gains, pictures of marks."""
  base, split = {"psnr": 29.5, "mae_inside": 0.125}, {"dataset": "marks", "n_images": 12, "n_patients": 12}
  test = {**split, "split": "test", "psnr": 31.25, "ssim": 0.9375, "mae_inside": 0.25, "threshold": 0.4375,
          "marks_precision": 0.75, "fill": "harmonic", "baseline": base, "n_marked": 9,
          "fill_network": {"psnr": 30.0, "ssim": 0.875}, "fill_harmonic": {"psnr": 31.25},
          "network": {"psnr": 28.0, "mae_outside": 0.0625},
          "baselines": {"nothing": base, "inpaint_ns": {"psnr": 35.0}},
          "ci95": {"psnr": [30.5, 32.0], "psnr_minus_baseline": [0.5, 3.0],
                   "mae_inside_minus_baseline": [0.0625, 0.25]}}
  val = {**split, "split": "val", "psnr": 29.5, "baseline": base,
         "ci95": {"psnr_minus_baseline": [-0.5, 0.5]}}
  dots = {"dots": {"title": "Gain of 3 frames", "unit": "dB", "zero": "untouched", "points": [
      {"name": "b", "value": 2.5}, {"name": "a", "value": -1.0}, {"name": "c", "value": None}]}}
  evaluation = _write(folder / "run", test, val, {"test": dots},
                      {"threshold": 0.4375, "threshold_rule": "best F1"})
  gallery.write(evaluation, "test", [
      {**row, "part": part} for row, part in zip(_pictures(), ("worst", "panel"))])
  return shown.page(page.write(folder / "run").read_bytes())


def segmentation_page(folder):
  """Of segmentation: Dice of all thresholds, quality of the annotations."""
  test = {"dataset": "skin", "split": "test", "dice": 0.8125, "jaccard": 0.6875, "dice_pooled": 0.84375,
          "n_images": 30, "n_empty_masks": 2, "against": "expert masks", "ci95": {"dice": [0.75, 0.875]},
          "annotation_quality": {"n_with_learnt_weight": 20, "ranked_by": "mean_weight",
                                 "mean_dice_label_expert": 0.9375, "spearman_mean_weight": -0.25,
                                 "other": None}}
  curves = {"thresholds": {"x": [0.25, 0.5, 0.75], "y": [0.5, 0.8125, 0.625], "threshold": 0.5}}
  evaluation = _write(folder / "run", test, None, {"test": curves}, {"threshold": 0.5})
  files.write_csv(evaluation / "test.csv", [
      {"id": f"i{k}", "group": f"g{k // 2}", "dice": k / 8} for k in range(4)])
  gallery.write(evaluation, "test", [_pictures()[0], _pictures()[3]])
  return shown.page(page.write(folder / "run").read_bytes())


def empty_page(folder):
  """Of a run that was not evaluated: what there is."""
  (folder / "run").mkdir()
  return shown.page(page.write(folder / "run").read_bytes())


ROWS = [
    {"input": "a", "score": 0.25, "p_value": 0.5, "verdict": "normal", "called_abnormal": 0, "mask_ml": 4.5,
     "map_max": 0.625, "threshold": 0.5, "slices": 40, "highest_slice": 11, "error": ""},
    {"input": "b&c", "score": 0.875, "p_value": 0.05, "verdict": "abnormal", "called_abnormal": 1,
     "mask_ml": 0.0, "map_max": 0.75, "threshold": 0.5, "slices": 1200, "highest_slice": 0,
     "warning": "far off", "error": ""},
    {"input": "d", "error": "no <file>"}]


def predictions_page(folder):
  """With verdicts, and of pixels of single images without them."""
  made = {"b&c": [files.write_png(folder / "b #1_overlay.png", picture(4, 6)), folder / "b_anomaly.nii.gz"],
          "a": [folder / "a_mask.nii.gz"]}
  about = {"method": "dae", "run": "r1", "checkpoint": "best, step 7", "trained_on": "synthetic",
           "calibration": "pixel threshold 0.5 (best Dice)", "own_threshold": 0.375}
  plain = [{"input": n, "score": s, "mask_pixels": m, "called_abnormal": c, "error": ""}
           for n, s, m, c in (("x", 3.0, 1234, 1), ("y", -1.0, 5, 0))]
  plain.append({"input": "z", "score": 0.5, "mask_voxels": 0, "map_max": 0.75, "threshold": 0.5, "error": ""})
  known, provenance.about = provenance.about, lambda: {"command": "launch.py", "commit": ""}
  try:
    first = predictions.write(folder, ROWS, made, about).read_bytes()
    about |= {"trained_on": "", "own_threshold": 0}
    second = predictions.write(folder, plain, {}, about).read_bytes()
  finally:
    provenance.about = known
  return f"{shown.page(first)}\n\n{shown.page(second)}"


def notebook(folder):
  """What a notebook and a terminal show of results, scores and rows."""
  anomaly = np.array([[0.0, 0.25, 1.0], [0.5, 0.125, 0.0]], np.float32)
  one = results.Score(anomaly, anomaly > 0.25, 0.75, 0.0625, "abnormal", 0.25, row={"warning": "far <off>"})
  several = results.Score(None, None, np.array([0.5, 0.25]))
  parts = {
      "terminal": result_table.text({"test": TEST, "val": VAL}),
      "sentences": "\n".join(result_table.sentence({**TEST, **more}) for more in (
          {}, {"model_better": None}, {"ci95": {}}, {"model_better_by": {}}, {"model_better": False})),
      "rows": shown.tree(result_table.rows(TEST)), "evaluation": shown.page(display.evaluation(TEST, None)),
      "without a baseline": shown.page(display.evaluation({"image_ap": 0.5, "split": "val"}, None)),
      "score": f"{one!r}\n{shown.page(one._repr_html_())}", "scores": shown.page(several._repr_html_()),
      "rows of predict": shown.page(results.Predictions(ROWS, "FOLDER")._repr_html_()),
      "long": shown.page(display.rows([{"n": n} for n in range(22)], "long")),
      "figure": _drawn(display.figure(TEST, [
          {"score": s, "label": label} for s, label in (
              ("0.5", "0"), ("1.5", "1"), ("1.25", "1"), ("9", ""))]))}
  return "\n\n".join(f"==== {name}\n{text}" for name, text in parts.items())


def _drawn(figure):
  """Lines, ticks and words of a matplotlib figure."""
  found = []
  for axis in figure.axes:
    found.append(f"axis {axis.get_title()!r} x {axis.get_xlabel()!r} y {axis.get_ylabel()!r} "
                 f"from {axis.get_xlim()[0]:.3g} to {axis.get_xlim()[1]:.3g}")
    found += [f"  line {np.asarray(line.get_xdata()).tolist()} at {np.asarray(line.get_ydata()).tolist()} "
              f"{line.get_color()} {line.get_marker()!r}" for line in axis.lines]
    if axis.lines:
      ticks = zip(axis.get_yticks(), axis.get_yticklabels())
      found += [f"  tick {t} {label.get_text()!r}" for t, label in ticks]
    found += [f"  bar {p.get_x():.4g} +{p.get_width():.4g} height {p.get_height():g}" for p in axis.patches
              if p.get_height()]
    legend = axis.get_legend()
    found += [f"  legend {t.get_text()!r}" for t in (legend.get_texts() if legend else ())]
  return "\n".join([f"size {figure.get_size_inches().tolist()}", *found])


CASES = {"page_of_anomaly": anomaly_page, "page_of_restoration": restoration_page,
         "page_of_segmentation": segmentation_page, "page_of_nothing": empty_page,
         "page_of_predictions": predictions_page, "notebook": notebook}
