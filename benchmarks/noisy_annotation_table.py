r"""Does reweighting help? Test Dice of all arms over several seeds, on a fully labelled set.

  python -m benchmarks.noisy_annotation_table --dir=FOLDER --out=RUNS --noise=polygon:3 --clean=10
Every arm has the same network, optimiser, learning rate, number of updates and batch of noisy
images, the last checkpoint (no selection on the validation set) and, per seed, the same clean
images and initial weights. Runs that have finished are read from RUNS, so that the command can be
repeated after an interruption. Prints one line a run, then a Markdown table: mean and standard
deviation over seeds of the test Dice at 0.5 and at the threshold chosen on val, and the difference
to "all" paired by seed. Note what each column uses: at 0.5 an arm knows only its own masks; the
threshold is chosen on the expert masks of the whole validation set.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time

from absl import logging
import numpy as np

from configs import noisy_skin
from medae_jax import evaluate, train

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
  workdir = pathlib.Path(args.out) / f"{arm.replace(' ', '_').replace(',', '')}_{seed}"
  result = workdir / "evaluation" / "test.json"
  begin = time.monotonic()
  if not result.exists():
    train.train(config.lock(), str(workdir))
    evaluate.evaluate(workdir)
  found = json.loads(result.read_text(encoding="utf-8"))
  keep = ("dice", "jaccard", "dice_val_threshold", "val_threshold", "sensitivity", "specificity")
  found = {"arm": arm, "seed": seed, **{k: found[k] for k in keep},
           "seconds": round(time.monotonic() - begin)}
  print(json.dumps(found), flush=True)
  return found


def table(rows, seeds) -> str:
  """Markdown: a line an arm."""
  of = lambda arm, key: np.array([r[key] for s in seeds for r in rows
                                  if r["arm"] == arm and r["seed"] == s])
  lines = ["| arm | Dice at 0.5 | minus all | Dice, threshold of val | minus all | threshold |",
           "|---|---|---|---|---|---|"]
  for arm in dict.fromkeys(r["arm"] for r in rows):
    cells = []
    for key in ("dice", "dice_val_threshold"):
      value = of(arm, key)
      cells.append(f"{value.mean():.3f} ± {value.std(ddof=1) if len(value) > 1 else 0:.3f}")
      cells.append(f"{(value - of('all', key)).mean():+.3f}" if len(of("all", key)) == len(value)
                   else "")
    lines.append(f"| {arm} | {' | '.join(cells)} | {of(arm, 'val_threshold').mean():.2f} |")
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
  parser.add_argument("--arms", default=",".join(a.replace(", ", "_") for a in ARMS))
  args = parser.parse_args()
  logging.set_verbosity(logging.WARNING)
  arms = [a for a in ARMS if a.replace(", ", "_") in args.arms.split(",")]
  rows = [run(args, arm, seed) for seed in range(args.seeds) for arm in arms]
  print(table(rows, range(args.seeds)))


if __name__ == "__main__":
  main()
