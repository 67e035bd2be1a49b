"""Which of the scores that a method offers: by the image AUROC on the validation split, and nothing else.

A method that can score in several ways shows all of them where config.method.score.offer is set, as
outputs "offer/FIELD=VALUE;FIELD=VALUE" [B]: the fields of config.method.score that choose it.
"""

from __future__ import annotations

from typing import Any

from absl import logging
import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.metrics import detection
from medae_jax.tasks.anomaly import intervals

_PREFIX = "offer/"


class ScoreChoice:
  """Collects scores and labels of val; `result` and `summary` go into calibration.json.

  Few validation anomalies choose badly among many scores: config.eval.choose_score names the fields that may
  change, and offers that differ from config.method.score in others are left out.

  Attributes:
    asks: fields under which val is scored for the choice.
  """

  asks = {"method.score.offer": True}

  def __init__(self, config):
    self._free, self._given = tuple(config.eval.choose_score), config.method.score
    self._scores: dict[str, list[np.ndarray]] = {}
    self._labels: list[np.ndarray] = []
    self._summary: dict[str, Any] = {}

  def update(self, batch, outputs) -> None:
    """Takes a batch; see tasks.base.BaseEvaluator.update.

    Raises:
      UserError: the method offers no scores, or val has neither labels nor masks.
    """
    offers = {k.removeprefix(_PREFIX): v for k, v in outputs.items() if k.startswith(_PREFIX)}
    offers = {k: v for k, v in offers.items() if self._allowed(k)}
    if not offers:
      raise UserError(f"config.eval.choose_score={self._free}: the method offers no scores that differ in "
                      "these fields; set it to ()")
    valid = np.asarray(batch["valid"], bool)
    if "label" in batch:
      label = np.asarray(batch["label"])
    elif "mask" in batch:
      label = np.any(np.asarray(batch["mask"]) > 0, axis=(1, 2, 3))
    else:
      raise UserError("config.eval.choose_score needs labels or masks in the val split; set it to ()")
    self._labels.append(np.asarray(label)[valid].astype(int))
    for name, value in offers.items():
      self._scores.setdefault(name, []).append(np.asarray(value)[valid])

  def _allowed(self, name):
    return all(self._given.get(k, None) == v for k, v in _fields(name).items() if k not in self._free)

  def result(self) -> dict[str, str]:
    """Fields of config.method.score with the highest AUROC; {} where val has one kind of images alone.

    Among equals the first by name.
    """
    label = np.concatenate(self._labels)
    if set(label) != {0, 1}:
      logging.warning("val has %s images alone: the score cannot be chosen there, config.method.score stays "
                      "as it is.", "abnormal" if label.any() else "normal")
      self._summary = {"image_auroc": {}, "abnormal": int(label.sum()), "normal": int((label == 0).sum())}
      return {}
    auroc = {name: float(detection.auroc(detection.sorted_counts(np.concatenate(v), label)))
             for name, v in self._scores.items()}
    best = max(sorted(auroc), key=lambda name: auroc[name])
    self._summary = {"image_auroc": auroc, "chosen": best, "abnormal": int(label.sum()),
                     "normal": int((label == 0).sum())}
    return _fields(best)

  def summary(self) -> dict[str, Any]:
    """AUROC on val of every offer, and how many images it stands on."""
    return self._summary


def before_choice(evaluator, scores: np.ndarray, config) -> dict[str, Any]:
  """{"score": fields that val could change, as configured, "image_auroc", "image_ap", "ci95"}.

  {} where the split has one kind of images alone.

  Args:
    evaluator: after its pass. scores: [n] by the score that the run's config names. config: that config.
  """
  if set(evaluator.label[evaluator.label >= 0]) != {0, 1}:
    return {}
  fields = {k: config.method.score[k] for k in config.eval.choose_score if k in config.method.score}
  return {"score": fields, **intervals.of_images(evaluator, scores)}


def _fields(name):
  """{"image": "forest", "taps": "r22"} of "image=forest;taps=r22"."""
  return dict(part.split("=", 1) for part in name.split(";"))
