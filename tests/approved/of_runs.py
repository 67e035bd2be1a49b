"""Tables and pages over several runs: sweeps, seeds, ensembles, the benchmark, the comparison."""

import types

import ml_collections
import numpy as np

from medae_jax import report
from medae_jax.core import files
from medae_jax.reporting import ensemble, seeds_table, tables, text_table
from medae_jax.training import cost
from tests.approved import shown

# {(method, data set): a list a class, of its runs}
_AUROC = {("dpa wo_pg", "cifar10"): ([0.625, 0.75], [0.5, None]),
          ("piad with_cv", "cifar10"): ([0.875], [0.8125]),
          ("dpa wo_pg", "nih subset"): ([0.9375, 0.90625, 0.96875],), ("plain <b>", "camelyon16"): ([None],)}


def _result(auroc, images=2000, **more):
  return {"image_auroc": auroc, "image_ap": auroc / 2, "scan_auroc": auroc, "n_images": images,
          "synthetic": False, "device": "one device", "checkpoint": {"which": "best", "step": 90},
          "ci95": {"image_auroc": [auroc - 0.125, auroc + 0.0625], "image_ap": [0.25, 0.5]},
          "baseline": {"image_auroc": 0.5625, "image_auroc_median5": 0.53125, "what": "x"}, **more}


def _sweep(folder):
  listed = []
  for (method, data), classes in _AUROC.items():
    for cls, values in enumerate(classes):
      for number, value in enumerate(values):
        for fold, auroc in ((-1, value), (0, 0.25), (1, 0.5 if number else None)):
          name = f"{method}_{data}_{cls}_{number}_{fold}".replace(" ", "").replace("<", "")
          entry = {"name": name, "method": method, "data": data, "run": str(number), "fold": fold,
                   "class": str(cls) if len(classes) > 1 else "", "setting": int(fold > 0),
                   "trunk": "" if "plain" in method else "vgg19, vgg19.pth"}
          if fold < 0 or (data == "cifar10" and number == 0 and cls == 0):
            listed.append(entry)
            if auroc is not None:
              more = {"baseline": {"image_auroc": 0.9375}} if fold >= 0 else {}  # of no final run
              files.write_json(folder / "runs" / name / "evaluation/test.json", _result(auroc, **more))
  files.write_json(folder / "sweep.json", {
      "runs": listed, "failed": {"plainb>_camelyon16_0_0_-1": "disk <full>"}, "changes": {"train.steps": 150},
      "unpublished": ["dpa/cifar10/pg/class_0/run_0"], "chosen": {"a": 1}})


def benchmark(folder):
  """All files of the report over a sweep and a run beside it."""
  _sweep(folder / "s")
  alone = folder / "alone"
  files.write_json(alone / "evaluation/test.json", _result(0.75, 1000, synthetic=True, scan_auroc=0.5))
  files.write_json(alone / "config.json", {
      "seed": 3, "method": {"name": "dpa", "loss": "l1", "score": {"loss": "l1"}, "vgg_weights": ""},
      "data": {"name": "natural", "dataset": "cifar10", "normal_class": 1}})
  report.report(folder / "s", str(alone))
  return shown.folder(folder / "s/benchmark", [(str(folder), "FOLDER")])


def _run(folder, name, gain):
  """Scores of 24 images of 12 patients; two are not shared by all."""
  n, rng = 24, np.random.default_rng(len(name))
  label = np.arange(n) % 2
  score = np.round(rng.normal(size=n), 3) + gain * label
  evaluation = folder / name / "evaluation"
  files.write_json(evaluation / "test.json", {"dataset": f"set of {name}", "synthetic": name == "bb"})
  files.write_csv(evaluation / "test_images.csv", [
      {"id": f"i{i}", "patient": f"p{i // 2}", "label": "" if name == "ccc" and i < 2 else int(label[i]),
       "score": float(score[i])} for i in range(n)])
  files.write_csv(evaluation / "test.csv", [
      {"patient": f"p{i}", "lesion_pixels": i % 3, "psnr": 20 + gain * (i % 4), "ssim": 0.5 + gain / 8,
       "dice_val_threshold": round(0.25 + gain * (i % 5) / 16 + 0.01 * i, 4)} for i in range(12)])
  files.write_json(folder / name / "config.json", {
      "method": {"name": "dae"}, "data": {"name": "d"}, "seed": 0})
  return folder / name


def comparison(folder):
  """Three runs on common cases."""
  first, *others = (_run(folder, name, gain) for name, gain in (("a", 0.5), ("bb", 2.0), ("ccc", 0.75)))
  files.write_bytes(first / "report.html", b"x")
  report.report(first, ",".join(map(str, others)), folder / "out")
  return shown.folder(folder / "out", [(str(folder), "FOLDER")],
                      skip=("benchmark", "runs.csv", "cells", "table", "critical"))


def ensembles(folder):
  """The mean of runs that val chooses."""
  rng, runs = np.random.default_rng(5), {}
  for name, gain, scale in (("good", 1.5, 1.0), ("large", 1.25, 100.0), ("wrong", -1.0, 1.0)):
    for split, n in (("val", 40), ("test", 30)):
      label = np.arange(n) % 2
      files.write_csv(folder / name / f"evaluation/{split}_images.csv", [
          {"id": i, "patient": f"p{i // 3}", "label": int(label[i]), "score": float(v)}
          for i, v in enumerate(np.round(scale * (rng.normal(size=n) + gain * label), 3))])
    runs[name] = folder / name
  return shown.tree({"found": ensemble.measure(runs), "other seed": ensemble.measure(runs, seed=1)["ci95"],
                     "val": ensemble.measure(runs, "val"), "alone": ensemble.measure({"good": runs["good"]})})


def _trial(name, cell, setting=0, labels=()):
  return types.SimpleNamespace(name=name, cell=tuple(cell.items()), setting=setting, labels=labels)


def sweep_table(folder):
  """sweep.json, table.csv and table.md, with and without what not every sweep has."""
  of = lambda value, **more: {
      "pixel_ap": value, "ci95": {"pixel_ap": [value - 0.125, value + 0.0625]}, "n_images": 40,
      "synthetic": False, "baseline": {"pixel_ap": 0.25, "pixel_ap_median5": 0.3125, "image_auroc": 0.5},
      "trivial_scores": {"std": {"pixel_ap": value / 4}}, **more}
  before = lambda value: {"before_choice": {"pixel_ap": value, "ci95": {"pixel_ap": [0.125, 0.375]}},
                          "score_chosen": f"max of {value}"}
  read = {"a0": of(0.5, **before(0.375)), "a1": of(0.75, **before(0.25)), "b0": of(0.0625, synthetic=True),
          "b1": None, "c0": None}
  fields = ml_collections.ConfigDict({
      "average": ("run",), "folds": 0, "metric": "pixel_ap", "split": "test", "config": "c.py", "arg": "x",
      "labels": {"exp": "own"}, "unpublished": ("u/v",)})
  trials = [_trial(f"{c}{r}", {"cls": c, "run": r}, setting=int(c == "b"), labels=(("model", f"m{c}"),))
            for c, r in (("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 0))]
  rounds = [{"members": members, "val_auroc": val, "pixel_ap": ap,
             "ci95": {"pixel_ap": [ap - 0.125, ap + 0.25]}}
            for members, val, ap in ((["a0", "a1"], 0.875, 0.625), (["a1"], 0.75, 0.5))]
  tables.write(folder / "full", fields, trials, lambda t: read[t.name], {"b1": "disk full"},
               {"a": {"steps": 5}}, runs=[{"name": "a0", "trunk": "vgg19"}, {"name": "b0", "trunk": ""}],
               elsewhere=["c0"], changes={"train.steps": 9}, ensembles=rounds)
  plain = {"image_auroc": 0.5, "n_images": 3, "synthetic": False}
  fields.update(folds=2, metric="image_auroc")
  tables.write(folder / "plain", fields, trials[:2], lambda _: plain, {}, {})
  return shown.folder(folder)


def seeds_tables(folder):
  """seeds.json and seeds.md of three seeds, of which one lacks a split."""
  of = lambda v: {"image_auroc": v, "n_images": 7, "psnr": 10 * v, "synthetic": v > 0.7, "flag": True,
                  "baseline": {"image_auroc": v / 2, "image_auroc_median5": v / 4}}
  read = {(1, "test"): of(0.5), (2, "test"): of(0.75), (5, "test"): {**of(0.625), "psnr": None},
          (2, "val"): of(0.25)}
  seeds_table.write(folder, [1, 2, 5], ["test", "val"], lambda s, split: read.get((s, split)),
                    {"seed_5": "stopped"})
  return shown.folder(folder)


def lines(folder):
  """Lines for the log: numbers, counts of data, what a run costs."""
  del folder
  now = cost.datetime.datetime(2026, 1, 2, 22, 30)
  config = ml_collections.ConfigDict({
      "train": {"batch_size": 12, "accum": 2}, "model": {"remat": False, "dtype": "float32"},
      "data": {"resident": True}})
  described = {"name": "own", "source": "s", "protocol": "labelled", "splits": {
      "train": {"normal": 1234, "abnormal": 0, "mean": 0.5}, "test": {"normal": 5, "patients": 2}}}
  return "\n".join([
      text_table.words({"loss_a": 0.123456, "n": 1200, "pair": [0.5, "x"], "inner": {"b_c": 1e-7}}),
      *text_table.counts(described), *text_table.counts({"lists": {"a_b": {"x_y": 3}}}),
      *(cost.expected(steps, seconds, now) for steps, seconds in ((900, 0.12), (100_000, 1.5), (1, 0.2))),
      *(cost.left(runs, done, seconds, now) for runs, done, seconds in ((9, 3, 990.0), (2, 2, 100_000.0))),
      cost.remedies(config), cost.remedies(config, 5), cost.remedies(config, 50),
      cost.remedies(ml_collections.ConfigDict({"train": {"batch_size": 1, "accum": 1}, "data": {}}))])


CASES = {"benchmark": benchmark, "comparison": comparison, "ensemble": ensembles,
         "table_of_sweep": sweep_table, "table_of_seeds": seeds_tables, "lines": lines}
