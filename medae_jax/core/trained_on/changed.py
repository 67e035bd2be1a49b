"""What may change of a run's config when something is scored with it: the one rule of all modes.

A run is scored by the network and with the preparation it was trained with; its own data stay split as they
were; its thresholds hold for the score and the preparation they were made with. What breaks this is refused
in one line, and config.predict.force=True goes on with a warning. The tables say it field by field; a test
finds every field of every data set in one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import os
import re
from typing import Any

from absl import logging

from medae_jax.core import calibration as calibration_lib, config as config_lib
from medae_jax.core.errors import UserError

INSIST = "--config.predict.force=True insists"

# Fields of config.data that change what the network is shown of a file.
PREPARATION = (
    "channels", "crop_size", "equalize_hist", "equalize_hist_test", "field_mm", "image_size", "invert",
    "magnification", "mean_image", "modalities", "mpp", "orientation", "placement", "preparation",
    "resize", "signed", "tissue", "to_grayscale", "unit", "window")
# ... that say who is trained on and who is tested, or how the run's own files are read: right for other data.
SPLIT = (
    "clean", "clean_seed", "dataset", "fold", "fold_seed", "folds", "frames", "group_pattern", "grouping",
    "layout", "lists_root", "manifest", "n_folds", "normal_class", "own_mpp", "projections", "split_by",
    "split_seed", "split_table", "table", "test_share", "val_anomalies", "val_class", "val_fraction",
    "val_from_clean", "val_from_test", "val_kind", "val_share", "view")
# ... that say where data are: another value is another data set.
PLACES = ("name", "dir", "root", "image_root", "tfds_dir", "clean_dir", "annotated_dir", "folder")
_FILES = ("lists_root", "mean_image", "split_table")  # of the two tables above: paths, with many spellings
# ... of training alone, of truth and what is measured, of speed and storage, and of synthetic data that are
# drawn for each split by itself.
HARMLESS = (
    *PLACES,
    "anomaly_words", "any_finding", "batch_sizes", "cache", "crop", "data_seed", "dicom", "eval_seed",
    "findings", "flip", "flip_lr", "flip_ud", "frame_size", "freeze_augmentation", "gain", "gamma",
    "jitter", "lesion_share", "lesion_values", "limit", "limit_train", "lungs", "mark_centred", "marks",
    "mask_dilate", "mask_dir", "mask_threshold", "masks_dir", "n_patients", "n_slices", "n_test",
    "n_train", "n_val", "noise", "noise_on_device", "noise_res", "noise_roll", "noise_seed", "noise_std",
    "noisy_includes_clean", "normal_words", "per_slide", "prepared_dir", "random_crop", "random_flip",
    "resident", "scale", "scored_per_slide", "soft_masks", "stain", "storage", "strict",
    "synthetic_counts", "synthetic_seed", "tissue_dir", "train_limit", "workers")
# Fields of the groups model and method (without method.score) that leave the network what it is.
_SAME_NETWORK = (
    "model.dtype", "model.norm_kernel", "model.precision", "model.remat", "method.dtype", "method.vgg_dtype",
    "method.meta_dtype", "method.backbone_weights", "method.vgg_weights", "method.cache",
    "method.cache_features", "method.views_at_once")
# Fields of method.score that move no threshold.
_SAME_SCORE = ("threshold", "dilate", "fill", "offer", "fit")
# Fields outside optim that decide what a step of training does, or by which step the learning rate falls.
_COURSE = ("seed", "train.steps", "train.batch_size")
_THRESHOLDS = ("threshold", "image_threshold", "scan_threshold")
_OF_VOLUMES = ("orientation", "placement", "field_mm", "unit")  # all that an older calibration.json notes


def check(trained, asked, *, converted: bool = False, splits: bool = True) -> None:
  """Refuses a config with which a run would be scored otherwise than it was trained.

  Args:
    trained: config of the run. asked: the same with what a command changes.
    splits: False where no data set is opened (predict, export): how it would be split changes nothing there,
      which is said.
    converted: the parameters were published by others (mode convert): which preparation and split they were
      trained with only the user knows, so that other ones are warned of.

  Raises:
    UserError: the field, its old and its new value, and what to do.
  """
  _act(asked, [*_network(trained, asked), *_data(trained, asked, converted, splits),
               *_predict(trained, asked)],
       "leave the field out")


def check_resumed(begun, asked) -> None:
  """Refuses to go on with a training on data that are prepared or split otherwise than those it began with;
  other steps, schedules and the like are said.

  Args:
    begun: config of the run. asked: the one to go on with, with what opening the data decided.

  Raises:
    UserError: as `check`; nobody can insist, since another run can start from this one.
  """
  for refused, line in _data(begun, asked, converted=False):
    if refused:
      raise UserError(f"{line}; give the field its old value to go on, or begin a run in "
                      "another --workdir, with --config.train.init_from the parameters of this one")
    logging.warning("%s", line)
  old = config_lib.flat(begun)
  other = [f"config.{k}={_shown(v)} ({_shown(old[k])} so far)" for k, v in config_lib.flat(asked).items()
           if (k in _COURSE or k.startswith("optim.")) and k in old and not same(old[k], v)]
  if other:
    logging.warning("The training goes on with %s: from here on alone, and by a schedule over all steps "
                    "where it has one, so that it will not equal a run begun with it.", ", ".join(other))


def check_calibration(config, calibration: Mapping[str, Any], before) -> None:
  """Refuses thresholds made with another preparation, warns of those made with another score.

  Args:
    config: of what is scored now. before: of the run, for a calibration.json that notes no score.

  Raises:
    UserError: as `check`.
  """
  name, again = calibration_lib.FILE, "--mode=evaluate makes it afresh"
  made = {k: calibration[k] for k in _OF_VOLUMES if k in calibration} | (calibration.get("prepared") or {})
  turned = config.predict.get("orientation", "")
  found = []
  for field, old in made.items():
    new = config.data.get(field)
    new = turned or new if field == "orientation" else new
    if field in config.data and not _may_become(field, old, new):
      found.append((True, f"{name} was made with config.data.{field}={_shown(old)}, this is prepared with "
                    f"{_shown(new)}, and its thresholds would be wrong"))
  score = config_lib.flat(config.method.get("score", {}))
  scored_with = calibration.get("scored_with") or config_lib.flat(before.method.get("score", {}))
  other = [f"{k}={score[k]!r} (there {old!r})" for k, old in scored_with.items()
           if k in score and k not in _SAME_SCORE and not same(old, score[k])]
  if other and any(calibration.get(k) is not None for k in _THRESHOLDS):
    found.append((False, f"config.method.score has {', '.join(other)}: {name} was made with another score, "
                  f"and its thresholds may not fit; {again} with the same options"))
  _act(config, found, again)


def record(config) -> dict[str, Any]:
  """What calibration.json notes of the config it is made with: {"prepared": ..., "scored_with": ...}."""
  return {"prepared": {k: _plain(config.data[k]) for k in PREPARATION if k in config.data},
          "scored_with": {k: _plain(v) for k, v in config_lib.flat(config.method.get("score", {})).items()}}


def moved(own: Mapping[str, Any], asked: Mapping[str, Any], places=PLACES) -> dict[str, str]:
  """{field: value} of `places` where `asked` leads to other data than `own`, however a folder is spelled."""
  return {k: str(asked[k]) for k in places
          if k in asked and not _same_place(str(own.get(k, "")), str(asked[k]))}


def slide_scale(config) -> tuple[float, float]:
  """(micrometres a pixel, magnification) of a run's patches, one of them 0; both where nothing says it."""
  for group in (config.predict.get("slide", None), config.data):
    mpp, power = (_number(group, k) for k in ("mpp", "magnification"))
    if mpp or power:
      return mpp, 0.0 if mpp else power
  paths = f"{config.data.get('image_root', '')}/{config.data.get('root', '')}"
  found = re.findall(r"(?:^|/)x(10|20|40)(?=/|$)", paths)
  return 0.0, float(found[-1]) if found else 0.0


def same(a, b) -> bool:
  """Whether two values of a field are one: a list and a tuple, a number and the pair of it."""
  a, b = _plain(a), _plain(b)
  if isinstance(a, list) != isinstance(b, list):
    a, b = (v if isinstance(v, list) else [v, v] for v in (a, b))
  return a == b


# ------------------------------------------------------------------------------------------ rules
_Found = Iterator[tuple[bool, str]]  # (refused, what is wrong)


def _network(trained, asked) -> _Found:
  own = config_lib.flat({k: trained[k] for k in ("model", "method")})
  outside = ":" in trained.method.name  # its fields may mean anything
  for name, new in config_lib.flat({k: asked[k] for k in ("model", "method")}).items():
    if name.startswith("method.score.") or name in _SAME_NETWORK or (outside and name != "method.name"):
      continue
    if name in own and not same(own[name], new):
      yield True, (f"--config.{name}={_shown(new)}: the network was trained with {_shown(own[name])}, and "
                   "this is another one")


def _data(trained, asked, converted, splits=True) -> _Found:
  elsewhere = moved(trained.data, asked.data)
  for name, new in asked.data.items():
    old = trained.data.get(name)
    if name not in trained.data or same(old, new) or (
        name in _FILES and _same_place(str(old), str(new))):
      continue
    told = f"--config.data.{name}={_shown(new)}"
    if name == "name":
      yield False, f"{told}: files are prepared as that data set does, the network was trained on {old}"
    elif name in PREPARATION:
      if not _may_become(name, old, new):
        yield not converted, (f"{told}: the network was trained with {_shown(old)} and its results would be "
                              "wrong")
      elif note := _note(name, old, new):
        yield False, f"{told}: {note}"
    elif name in SPLIT and not splits:
      yield False, f"{told} changes nothing here: the run's own data are not read"
    elif name in SPLIT:
      if not elsewhere and not converted:
        yield True, (f"{told}: the run's own data were read and split with {_shown(old)}, and patients of "
                     "its training could be tested")
    elif name not in HARMLESS:
      yield False, f"{told}: what this changes is not known, the network was trained with {_shown(old)}"


def _predict(trained, asked) -> _Found:
  own, turned = trained.data.get("orientation", ""), asked.predict.get("orientation", "")
  if turned and turned != trained.predict.get("orientation", "") and own and turned != own:
    yield True, (f"--config.predict.orientation={turned!r}: the network was trained with {own!r} and its "
                 "results would be wrong")
  old, new = slide_scale(trained), slide_scale(asked)
  told = [k for k in ("mpp", "magnification") if not same(trained.data.get(k), asked.data.get(k))]
  if any(old) and any(new) and not told and not _same_scale(old, new):
    slide = asked.predict.get("slide", None)
    fields = {f"predict.slide.{k}": slide[k] for k in ("mpp", "magnification") if _number(slide, k)}
    fields = fields or {f"data.{k}": v for k, v in moved(trained.data, asked.data).items()}
    name, value = next(iter(fields.items()))
    yield True, (f"--config.{name}={value!r}: the network was trained on patches of {_scale(old)}, these are "
                 f"of {_scale(new)}")


def _may_become(name: str, old, new) -> bool:
  """Whether a field of the preparation may have another value: where training left open what is now said."""
  if same(old, new):
    return True
  if name == "orientation":  # volumes as stored
    return not old
  if name == "window":       # files that say it themselves
    return same(old, (0, 0))
  if name == "modalities":   # columns of another data set may have other names, in the same order
    old, new = _plain(old or ()), _plain(new or ())
    if not (isinstance(old, list) and isinstance(new, list)):
      return False
    return len(old) == len(new) and all(m not in old or old.index(m) == i for i, m in enumerate(new))
  return False


def _note(name: str, old, new) -> str:
  if name == "window":
    return "the files of the training said black and white themselves; see that these mean the same"
  if name == "modalities" and [str(m).casefold() for m in old] != [str(m).casefold() for m in new]:
    return f"they are read in the place of {_shown(old)}"
  return ""


# ----------------------------------------------------------------------------------------- pieces
def _act(config, found, remedy: str) -> None:
  """Raises the first line that is refused, else logs all."""
  force = bool(config.get("predict", {}).get("force", False))
  for refused, line in found:
    if refused and not force:
      raise UserError(f"{line}; {remedy} ({INSIST})")
  for refused, line in found:
    logging.warning("%s%s", line, " (config.predict.force: all the same)" if refused else "")


def _plain(value) -> Any:
  """The value as JSON has it."""
  if hasattr(value, "items"):
    return {k: _plain(v) for k, v in value.items()}
  return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _number(group, name: str) -> float:
  """group.name, 0 where it is not there; what is no number is refused by those who read it."""
  value = group.get(name, 0) if hasattr(group, "get") else 0
  return float(value) if isinstance(value, (int, float)) else 0.0


def _shown(value) -> str:
  return " ".join(repr(tuple(value) if isinstance(value, list) else value).split())


def _same_place(own: str, asked: str) -> bool:
  return own == asked or bool(own and asked and _real(own) == _real(asked))


def _real(path: str) -> str:
  return os.path.realpath(os.path.expanduser(path))


def _same_scale(a, b) -> bool:
  """Scales as (mpp, magnification): x10 is 1 micrometre a pixel, as scanners call it."""
  one, other = (mpp or 10 / power for mpp, power in (a, b))
  return abs(one - other) < (1e-6 if bool(a[0]) == bool(b[0]) else 0.15 * one)


def _scale(found) -> str:
  return f"{found[0]:g} micrometres a pixel" if found[0] else f"x{found[1]:g}"
