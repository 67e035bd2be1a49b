"""Fields of config.eval and config.predict that belong to anomaly detection, and their ranges."""

from __future__ import annotations

from medae_jax.core import checks, fields
from medae_jax.core.errors import UserError
from medae_jax.tasks.slides import options as slides

MEASURES = ("similarity", "perceptual", "aupro", "boxes", "surface", "lesions", "probability", "trivial")

EVAL = dict(
    baseline_channel=0,       # the intensity threshold shown beside the model: FLAIR, say
    components=20,            # 3-D components of at most so many voxels are deleted; 0 = none
    dice_thresholds="1000",   # "1000": k/1000 as the DAE reference; "all": every float16
    quantile=0.99,            # of normal val scores: the threshold where val has no lesions
    alpha=0.05,               # of normal scans called abnormal, where val has normal ones alone
    fit_residual=False,       # fit sign and weight of each modality's residual on val ...
    fit_lesions="marked",     # ... to its masks; "drawn": to SYNTHETIC lesions on its healthy slices;
                              # "both": the mean of both weights, best where few patients are marked
    choose_score=(),          # fields of method.score that val's image AUROC decides, of what is offered
    measures=(),              # more of them: similarity, perceptual, aupro, boxes, surface, lesions,
                              # probability, trivial (docs/scores.md)
    surface_tolerance=2.0,    # mm (pixels where mm are not known) within which surfaces agree
    trunk="vgg16", trunk_weights="", trunk_layers=("r12", "r22", "r33", "r43"),  # of measure perceptual
    panel_images=8)           # rows of the picture; 0 = none

PREDICT = dict(
    batch_size=16,            # slices or images scored at a time
    threshold=0.0,            # of the map, for masks; 0 = the one of calibration.json
    orientation="",           # turn volumes to these axes (LPS, RAS ...); "" = config.data.orientation
    layout="files",           # of volumes' results: files side by side, or bids (a data set of derivatives)
    dicom_seg="auto",         # DICOM SEG of DICOM series: auto (where highdicom is installed), True or False
    slide=fields.SLIDE,       # of whole slides
    overlay_slices=6)         # slices in the overlay picture of a volume; 0 = no pictures


def _axes(value) -> str:
  """"" or three letters, one of each pair of opposite directions."""
  letters = sorted(["LR", "PA", "SI"].index(pair) for c in value for pair in ("LR", "PA", "SI")
                   if c in pair) if isinstance(value, str) else None
  fits = value == "" or (letters == [0, 1, 2] and len(value) == 3)
  return "" if fits else 'axes such as LPS or RAS (one each of L R, P A and S I), or ""'


RULES = {
    **slides.RULES,
    "eval.baseline_channel": checks.whole(0, 65536),
    "eval.components": checks.whole(0, 2**31 - 1),
    "eval.dice_thresholds": checks.choice("1000", "all"),
    "eval.quantile": checks.number(0, 1, above=True),
    "eval.alpha": checks.number(0, 1, above=True),
    "eval.fit_residual": checks.flag,
    "eval.fit_lesions": checks.choice("marked", "drawn", "both"),
    "eval.choose_score": checks.several(checks.text),
    "eval.measures": checks.several(checks.choice(*MEASURES)),
    "eval.surface_tolerance": checks.number(0),
    "eval.trunk": checks.text, "eval.trunk_weights": checks.text, "eval.trunk_layers": checks.names(),
    "eval.panel_images": checks.whole(0, 65536),
    "predict.batch_size": checks.whole(1, 65536),  # the last batch is filled up
    "predict.threshold": checks.number(),
    "predict.orientation": _axes,
    "predict.layout": checks.choice("files", "bids"),
    "predict.dicom_seg": checks.choice("auto", "True", "False", True, False),
    "predict.overlay_slices": checks.whole(0, 65536),
}


def check(config, channels: int | None) -> None:
  """What depends on more than one field.

  Args:
    channels: of the images, None where that is not known yet.

  Raises:
    UserError: the field, and what is allowed.
  """
  channel = config.eval.baseline_channel
  if channels is not None and channel >= channels:
    raise UserError(f"config.eval.baseline_channel={channel}: the images have {channels} channel(s), "
                    f"0 to {channels - 1}")
  if "perceptual" in config.eval.measures:
    from medae_jax.tasks.anomaly import measures  # JAX, which config files do without
    measures.check_trunk(config)
  score = config.method.get("score", None) or {}
  if lost := [name for name in config.eval.choose_score if name not in score or "offer" not in score]:
    there = f"it has {', '.join(score)}" if "offer" in score else "it offers none to choose from"
    raise UserError(f"config.eval.choose_score has {lost[0]!r}, no field of config.method.score that can be "
                    f"chosen: {there}; set it to ()")
  kind = score.get("kind", "published")
  if config.eval.fit_residual and kind != "published":
    raise UserError("config.eval.fit_residual fits the published score; config.method.score.kind="
                    f"{kind!r} has no weights of the residual: turn one of them off")
  if config.eval.fit_residual and "weights_positive" not in score:
    raise UserError(f"config.eval.fit_residual: the score of {config.method.name} has no weights of "
                    "the residual; turn it off")
  for name in ("weights_positive", "weights_negative"):
    given = score.get(name, ())
    allowed = checks.weights(given)
    if allowed:
      shown = " ".join(repr(given).split())
      raise UserError(f"config.method.score.{name}={shown}: it must be {allowed}")
    if channels is not None and len(given) not in (0, channels):
      raise UserError(f"config.method.score.{name}={tuple(given)}: the images have {channels} "
                      "channel(s); give one weight each, or ()")
