r"""What helps on brains: folds of the train and val patients, trained once and scored in many ways.

  python launch.py --mode=sweep --workdir=W --config=configs/sweep_brains.py:small,root=FOLDER
  python launch.py --mode=sweep --workdir=W --config=configs/sweep_brains.py:small,root=FOLDER,study=noise

The patients of train and val are dealt into folds=5 (data.folds): a network is trained on three, scores
are fitted on the next one and measured on the last one; the test patients are not read. Resumable: call
it again to go on. table.md has the pixel AP of the runs' own score on the folds' patients. Afterwards
test is read once, by an evaluation of the default: docs/dae.md.

Arguments: runs=1 (seeds 0 to runs - 1), folds=5, on=0+2 (these folds of them alone), steps=300 (of training),
  root (data.dir; without it SYNTHETIC brains), unit=percentile, median or balanced (data.unit; the default is
  that of dae_nifti.py).
  study=scores  one network a fold and seed, 35 scores of each and detectors without a network
                in scores.md, scores.csv, with paired intervals over patients (the default)
  study=noise   one network for each resolution (4 to 32) and sigma (0.1 to 0.4) of the noise, published score
  study=training  the default of dae_nifti.py with one thing of its training changed at a time, and its own
                score; stopped early, the table has fewer folds. changes=loss_l1+twice_as_wide: these alone
  :small        96x96, wf 3, 600 steps: 4 minutes a network on one free core
  :smoke        SYNTHETIC, seconds a run; for tests
"""

import ml_collections

from configs import common, dae_nifti
from data_pipelines.errors import UserError

NOISE = {"noise_res": (4, 8, 16, 32), "noise_std": (0.1, 0.2, 0.4)}
TRAINING = {  # name: (arguments of dae_nifti.py, fields)
    "default": ("", {}), "noise_4_nodes": ("noise_res=4", {}), "noise_8_nodes": ("noise_res=8", {}),
    "noise_32_nodes": ("noise_res=32", {}),
    "noise_0.1": ("noise_std=0.1", {}), "noise_0.4": ("noise_std=0.4", {}),
    "roll_per_image": ("", {"data.noise_roll": "example"}), "loss_l1": ("loss=l1", {}),
    "loss_ssim_l1": ("loss=ssim+l1", {}), "half_as_wide": ("", {"model.wf": 2}),
    "twice_as_wide": ("", {"model.wf": 4}), "twice_as_long": ("", {}), "half_as_long": ("", {}),
    "mirrored": ("", {"data.flip": True}),
    "gain_0.1": ("", {"data.gain": 0.1}), "gain_0.3": ("", {"data.gain": 0.3})}


def get_config(arg=None):
  """The config of the first run, with the group `sweep`.

  Raises:
    UserError: an unknown argument, study or change.
  """
  args = common.parse_arg(arg, root="", study="scores", runs=1, folds=5, on="", steps=0, unit="", changes="",
                          small=False, smoke=False)
  if args.study not in ("scores", "noise", "training"):
    raise UserError(f"config argument study={args.study}: use scores, noise or training")
  if args.changes and args.study != "training":
    raise UserError(f"config argument changes={args.changes}: it belongs to study=training")
  changes = common.some_of(args, "changes", TRAINING)
  words = [w for w in ("small", "smoke") if args[w]]
  words += [f"{name}={args[name]}" for name in ("root", "unit") if args[name]]
  folds = args.folds if args.root else 0  # synthetic brains have no folds
  words = ",".join([*words, f"folds={folds}"])
  config = dae_nifti.get_config(words)
  quick = {"eval.panel_images": 0, "train.steps": args.steps or config.train.steps}
  scored = {"eval.fit_lesions": "marked", "method.score.test_noise_draws": 0, **quick}
  if args.study == "scores":  # the study scores the network again, in every way
    scored["eval.bootstrap"] = 0
  if args.study == "noise":
    scored["eval.fit_residual"] = False
  on = tuple(map(int, common.some_of(args, "on", [str(f) for f in range(folds or 1)])))
  grid = {"run": tuple(range(args.runs)), "fold": on}
  training = args.study == "training"
  with config.unlocked():
    config.sweep = ml_collections.ConfigDict(dict(
        config="configs/dae_nifti.py", arg=words, grid={**(NOISE if args.study == "noise" else {}), **grid},
        average=("run", "fold"), settings=(scored,), folds=0, final_steps="", split="test",
        parts=_changes(words, grid, quick, changes) if training else (), rounds=training,
        metric="pixel_ap", together=1, retries=0, slurm=0, shard=(0, 1),
        study="brain_scores" if args.study == "scores" else "",
        labels={"model": "dae", "data": "brains" if args.root else "synthetic", "exp": args.study}))
  return config.lock()


def _changes(words, grid, quick, names):
  """A part of the sweep for each of these names of TRAINING."""
  steps = quick["train.steps"]
  longer = {"twice_as_long": {"train.steps": 2 * steps}, "half_as_long": {"train.steps": steps // 2}}
  return tuple(
      dict(name=name, config="configs/dae_nifti.py", arg=",".join(filter(None, [words, more])), grid=grid,
           settings=({**quick, **fields, **longer.get(name, {})},), labels={"change": name})
      for name in names for more, fields in (TRAINING[name],))
