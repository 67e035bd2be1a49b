"""The one place where predict asks whether an input fits what the run was trained on, and where
what is unusual about an input is said: in the log and in its row of predictions.csv."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib

from absl import logging
import numpy as np

from data_pipelines.errors import UserError as ReadError
from data_pipelines.formats import dicom, doubts, images
from medae_jax.core.errors import UserError
from medae_jax.core.trained_on import fit
from medae_jax.core.trained_on.changed import INSIST
from medae_jax.core.trained_on.record import TrainedOn


def picture(paths: Sequence[pathlib.Path], apart: bool = False) -> fit.Seen:
  """Seen of an image; a file that cannot be read is left to the reader that follows, which says why.

  Args:
    paths: its file, or, where `apart`, one a modality.
  """
  try:
    values = [images.read_values(p) for p in paths]
  except (ReadError, OSError):
    return fit.Seen("image")
  planes = sum(v.shape[-1] for v in values)
  words = tuple(sorted({w for p in paths if (w := dicom.modality(p))}))
  aspect, oblong = max(map(doubts.aspect, paths), key=lambda found: bool(found[1]))
  return fit.Seen("image", planes, max(map(fit.colour_share, values)), apart, words, oblong=oblong,
                  aspect=aspect, intent=dicom.intent(paths[0]), greys=max(map(doubts.few_greys, values)),
                  size=values[0].shape[:2])


def volume(series: Sequence[Sequence[pathlib.Path]]) -> fit.Seen:
  """Seen of a scan; `series`: the files of its DICOM series, () of NIfTI files."""
  return fit.Seen("volume", dicom=tuple(sorted({w for s in series if (w := dicom.modality(s[0]))})))


def check_finite(*outputs: np.ndarray) -> None:
  """Raises UserError where scores, or what a model makes beside them, are not finite."""
  if not all(np.isfinite(values).all() for values in outputs):
    raise UserError("the model's score is not finite: the input or the model is broken")


def check_scored(images: np.ndarray, scores: np.ndarray, maps: np.ndarray, threshold: float | None = None
                 ) -> None:
  """Refuses what a model makes of an input that it cannot score.

  Args:
    images: [n,h,w,C]; where all pixels are alike there may be nothing to score, which is said elsewhere.
    scores: [n]. maps: [n,h,w], of no size without a map. threshold: of the map.

  Raises:
    UserError: a score is not finite; the map is 0 in every pixel: nothing of a brain's slices is left within
      its eroded outline, as of volumes whose axes are exchanged, and "normal" would be no finding; a negative
      threshold that would mark all of it, background too.
  """
  check_finite(scores)
  if maps.size and not maps.any() and np.ptp(images):
    raise UserError("its map is 0 in every pixel, nothing of it was scored: are its axes exchanged, was it "
                    "taken in another plane than the training's slices, or is it almost empty?")
  if threshold is not None and maps.size and threshold < min(0.0, float(maps.min())):
    raise UserError(f"the threshold {threshold:g} is below every value of its map, which would be marked all "
                    f"over: give one from {max(0.0, float(maps.min())):.3g} to {float(maps.max()):.3g}, or 0 "
                    "for that of validation")


class Gate:
  """Lets inputs through, or not.

  Args:
    trained: None = nothing is known of the training, everything passes as it always did.
    force: config.predict.force: what would be refused passes with a warning.
  """

  def __init__(self, trained: TrainedOn | None, force: bool):
    self.trained, self._force = trained, force
    self._said: list[str] = []

  def form(self, title: str, seen: fit.Seen) -> None:
    """Before the input is prepared; raises UserError where it is of another kind."""
    if self.trained is not None:
      self._say(title, fit.of_form(self.trained, seen))
    if seen.kind != "image":
      return
    if seen.greys:
      self.warn(title, ("all of its pixels are alike", "it has two grey values alone, as masks have")[
          seen.greys - 1] + ": is it a picture?")
    known = () if self.trained is None else self.trained.intents
    if seen.intent and known and seen.intent not in known:
      self.warn(title, f"it is a {seen.intent} radiograph (Presentation Intent Type), those of the training "
                f"are {known[0]}: greys differ")
    usual = 1.0 if self.trained is None else self.trained.aspect
    if not doubts.same_aspect(seen.aspect, usual):
      own = f"are not square ({seen.oblong})" if seen.oblong else "are square, or no header says otherwise"
      self.warn(title, f"its pixels {own}, and are read as if they were" + (
          "" if usual == 1 else f" those of the training, {usual:.3g} times as high as wide"))

  def content(self, title: str, seen: fit.Seen, example: np.ndarray) -> None:
    """Once it is prepared, [n,h,w,C]; raises UserError where a picture is no slice, warns of intensities."""
    if self.trained is None:
      return
    if seen.kind == "image":
      self._say(title, fit.of_picture(self.trained, example))
    line = fit.warning(self.trained, seen, example)
    if line:
      self.warn(title, line)
    whole = seen.kind == "image" and tuple(example.shape[1:3]) == tuple(self.trained.size)  # no tile
    if whole and len(example) and doubts.is_negative(example[0], self.trained.middle):
      self.warn(title, "it is dark where images of the training are bright: are black and white turned round "
                "(MONOCHROME1)?")

  def warn(self, title: str, line: str) -> None:
    """Says what is unusual about the input; its result is written all the same."""
    logging.warning("%s: %s", title, line)
    self._said.append(line)

  @property
  def warnings(self) -> list[str]:
    """What was said since the last `taken`."""
    return list(self._said)

  def taken(self) -> str:
    """The warnings since the last call, for the table; "" where there were none."""
    said, self._said = "; ".join(self._said), []
    return said

  def _say(self, title, line):
    if not line:
      return
    if not self._force:
      raise UserError(f"{title} does not fit the model: {line}; {INSIST}")
    self.warn(title, f"does not fit the model: {line}; read all the same (config.predict.force)")
