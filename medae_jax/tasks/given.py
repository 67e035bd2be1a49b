"""Arrays that a user hands to `Run.score`: brought to a batch, and compared with what the method needs and
with what the run was trained on, as predict compares files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from data_pipelines.formats import doubts
from medae_jax.core.errors import UserError
from medae_jax.core.needs import Need, of
from medae_jax.core.trained_on import fit
from medae_jax.core.trained_on.record import TrainedOn

_PREPARED = "an array is prepared as config.data says; give the file itself to have it prepared"
_FAR = 3  # times the brightest of the training: no image of the same unit has half of its pixels there
_SLACK = 1e-4  # resampling and float16 storage overshoot a little
_FORMS = "[H,W], [H,W,C] or [B,H,W,C]"


def batch(value, needs: Mapping[str, Need]) -> tuple[dict[str, Any], bool]:
  """({"image": float32 [B,H,W,C], ...}, whether it was a single image) of an array or a dict of arrays.

  Args:
    needs: of the method, {} where they are not known.

  Raises:
    UserError: no numbers, no floats (0 ... 255, masks), masked, infinite or NaN pixels, values beyond what
      the method needs, other axes, no image at all.
  """
  given = dict(value) if isinstance(value, Mapping) else {"image": value}
  if given.get("image") is None:
    raise UserError(f"there is no image to score{f' among {sorted(given)}' if given else ''}: give a file, "
                    f"an array {_FORMS}, or " + '{"image": array}')
  image = _floats(given["image"])
  if image.ndim not in (2, 3, 4):
    raise UserError(f"an image is {_FORMS}, not {image.shape}")
  if not image.size:
    raise UserError(f"an array of shape {image.shape} holds no pixel: there is nothing to score")
  single = image.ndim < 4
  image = image[..., None] if image.ndim == 2 else image
  image = image[None] if single else image
  _check_range(image, of(needs, "image"))
  return {**given, "image": image}, single


def warning(image: np.ndarray, trained: TrainedOn | None, any_size: bool) -> str:
  """What is unusual about images [B,H,W,C], "" where nothing is or where nothing is known of the training.

  Args:
    any_size: the task shows the network whole frames, of whatever size.

  Raises:
    UserError: another number of channels; most of what is no background is brighter than all that the
      training has seen: not prepared.
  """
  if trained is None:
    return ""
  if image.shape[-1] != trained.channels:
    raise UserError(f"the array has {image.shape[-1]} channel(s), as shape {image.shape[1:]} is read, and "
                    f"images of the training have {trained.channels}: give {_FORMS}, channels last")
  middle = float(np.median(fit.quantiles(image, trained.kind), axis=1).max())
  if middle > _FAR * max(trained.high, 0):
    raise UserError(f"half of the image is above {middle:.4g}, and the training has seen nothing above "
                    f"{trained.high:.4g}: {_PREPARED}")
  said = [fit.warning(trained, fit.Seen(trained.kind, coloured=1.0), image)]
  if not any_size and image.shape[1:3] != tuple(trained.size):
    rows, columns = image.shape[1:3]
    said.insert(0, f"it has {rows} rows and {columns} columns, images of the training have {trained.size[0]} "
                   f"and {trained.size[1]}: things may have another size")
  if trained.kind == "image" and (flat := [few for few in map(doubts.few_greys, image) if few]):
    said.append(f"{len(flat)} of {len(image)} images have {('one value', 'two values')[min(flat) - 1]} "
                "alone: are they pictures?")
  return "; ".join(filter(None, said))


def _floats(value) -> np.ndarray:
  """The value as float32; refuses what would only look like pixels."""
  if isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).any():
    raise UserError("the array has masked pixels, which a network cannot leave out: fill them first")
  try:
    array = np.asarray(value)
  except (ValueError, TypeError, RuntimeError) as e:  # unequal lengths; tensors with gradients
    raise UserError(f"what is to be scored is no array ({' '.join(str(e).split())[:120]})") from e
  if not jax.dtypes.issubdtype(array.dtype, np.floating):
    kind = {"U": "text: give one file at a time, or run.predict(folder)", "S": "bytes: give the file's name",
            "c": "complex: a network reads its magnitude",
            "O": "objects, not numbers: files are given one at a time"}.get(
                array.dtype.kind, f"{array.dtype}, as pixels of a file or a mask are, not float32")
    raise UserError(f"the array holds {kind}: {_PREPARED}")
  return array.astype(np.float32)


def _check_range(image, need: Need):
  if not np.isfinite(image).all():
    raise UserError(f"the array holds NaN or infinity in {np.count_nonzero(~np.isfinite(image)):,} of "
                    f"{image.size:,} values: nothing can be said of it")
  low, high = float(image.min()), float(image.max())
  if (need.low is not None and low < need.low - _SLACK) or (
      need.high is not None and high > need.high + _SLACK):
    raise UserError(f"the array holds values from {low:.4g} to {high:.4g}, the method needs {need}: "
                    f"{_PREPARED}")
