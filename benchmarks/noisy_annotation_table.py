r"""Does reweighting help? Test Dice of all arms over several seeds, on a fully labelled set.

  python -m benchmarks.noisy_annotation_table --dir=FOLDER --out=RUNS --noise=polygon:3 --clean=10
Every arm has the same network, optimiser, learning rate, number of updates and batch of noisy
images, the last checkpoint (no selection on the validation set) and, per seed, the same clean
images and initial weights. Runs that have finished are read from RUNS, so that the command can be
repeated after an interruption. Prints one line a run and, after each complete seed, a Markdown
table: mean and standard deviation over seeds of the test Dice, and the differences to "all" and to
"fine-tune" paired by seed, for three rules to cut the probability:
  at 0.5              an arm knows only its own masks;
  threshold of clean  best on the few clean training images: nothing more than the method is given
                      (optimistic there for arms that were fitted to them);
  threshold of val    best on the expert masks of the whole validation set.
The arms of the paper run first for all seeds, then the three others.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time

from absl import logging
import numpy as np

from configs import noisy_skin
from data_pipelines import dataset as datasets
from medae_jax import evaluate, train
from medae_jax.core import files, trained
from medae_jax.tasks import base

# name -> (argument of the config, changes)
ARMS = {
    "clean only": ("baseline=supervised", {}),
    "all": ("baseline=plain", {}),
    "fine-tune": ("baseline=finetune", {}),
    "image reweight": ("baseline=image_reweight", {}),
    "pixel reweight": ("baseline=pixel_reweight", {}),
    "all + clean loss": ("baseline=plain", {"method.clean_weight": 1.0}),
    "pixel reweight + clean loss": ("baseline=pixel_reweight", {"method.clean_weight": 1.0}),
    "all, true masks": ("baseline=plain,noise=none", {}),
}
PAPER = 5  # the first so many arms


def folder(arm: str) -> str:
  """The arm's name in --arms and in the names of folders."""
  return arm.replace(",", "").replace(" ", "_")


def run(args, arm: str, seed: int) -> dict:
  """Trains and evaluates one arm; {"dice", "dice_val_threshold", ...} of the test split."""
  words, changes = ARMS[arm]
  noise = "" if "noise=" in words else f",noise={args.noise}"
  config = noisy_skin.get_config(
      f"small,{words}{noise},clean={args.clean},seed={seed},steps={args.steps}")
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.data.dir, config.optim.lr = args.dir, args.lr
    config.train.eval_every, config.train.save_every = 0, args.steps
    config.train.log_every = max(args.steps // 10, 1)
    config.eval.checkpoint, config.eval.overlays = "last", 4
    config.eval.splits = ("val", "test", "noisy") if "reweight" in arm else ("val", "test")
    config.update_from_flattened_dict(changes)
  options = f"{args.noise}_{args.clean}_{args.steps}_{args.lr:g}".replace(":", "")
  workdir = pathlib.Path(args.out) / options / f"{folder(arm)}_{seed}"
  result = workdir / "evaluation" / "test.json"
  begin = time.monotonic()
  if not result.exists():
    train.train(config.lock(), str(workdir))
    evaluate.evaluate(workdir)
  found = json.loads(result.read_text(encoding="utf-8")) | clean_threshold(workdir)
  keep = ("dice", "jaccard", "dice_clean_threshold", "clean_threshold", "dice_val_threshold",
          "val_threshold", "dice_on_clean", "sensitivity", "specificity")
  found = {"arm": arm, "seed": seed, **{k: found[k] for k in keep},
           "seconds": round(time.monotonic() - begin)}
  print(json.dumps(found), flush=True)
  return found


def clean_threshold(workdir) -> dict:
  """Test Dice at the threshold with the best mean Dice on the clean training images."""
  path = workdir / "evaluation" / "clean_threshold.json"
  if not path.exists():
    run = trained.load(workdir, {"eval.checkpoint": "last"}, calibrated=False)
    config, calibration = run.config, None
    dataset = datasets.open_dataset(config.data, config.seed)
    make = base.plugin(config.eval.kind, "evaluator").Evaluator
    for split in ("clean", "test"):
      found = make(config, dataset, split, calibration)
      evaluate.stream_through(run.score_fn, dataset.split(split), found.update, label=split,
                              on_device=False, batch_size=config.eval.batch_size)
      if split == "clean":
        calibration, on_clean = found.calibrate(), found.result()["dice"]
    files.write_json(path, {"dice_clean_threshold": found.result()["dice_val_threshold"],
                             "clean_threshold": calibration["threshold"],
                             "dice_on_clean": on_clean})
  return json.loads(path.read_text(encoding="utf-8"))


def table(rows) -> str:
  """Markdown: a line an arm, over the seeds that this arm has."""
  def spread(values, sign=""):
    sd = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):{sign}.3f}{sd}"
  rules = {"dice": "at 0.5", "dice_clean_threshold": "threshold of clean",
           "dice_val_threshold": "threshold of val"}
  lines = ["| arm | seeds | " + " | ".join(
      f"Dice {text} | minus all | minus fine-tune" for text in rules.values()) + " |",
           "|---" * (2 + 3 * len(rules)) + "|"]
  of = {(r["arm"], r["seed"]): r for r in rows}
  for arm in dict.fromkeys(r["arm"] for r in rows):
    seeds = [r["seed"] for r in rows if r["arm"] == arm]
    cells = [arm, str(len(seeds))]
    for key in rules:
      cells.append(spread([of[arm, s][key] for s in seeds]))
      for other in ("all", "fine-tune"):
        pairs = [of[arm, s][key] - of[other, s][key] for s in seeds if (other, s) in of]
        cells.append(spread(pairs, "+") if pairs and arm != other else "")
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--dir", required=True, help="folder with labels.csv")
  parser.add_argument("--out", required=True, help="folder for the runs")
  parser.add_argument("--noise", default="polygon:3")
  parser.add_argument("--clean", type=int, default=10)
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--steps", type=int, default=600)
  parser.add_argument("--lr", type=float, default=1e-3)
  parser.add_argument("--arms", default=",".join(map(folder, ARMS)))
  args = parser.parse_args()
  logging.set_verbosity(logging.WARNING)
  wanted = [a for a in ARMS if folder(a) in args.arms.split(",")]
  rows = []
  for part in (list(ARMS)[:PAPER], list(ARMS)[PAPER:]):
    for seed in range(args.seeds):
      new = [run(args, arm, seed) for arm in part if arm in wanted]
      rows += new
      if new:
        print(table(rows), flush=True)


if __name__ == "__main__":
  main()
