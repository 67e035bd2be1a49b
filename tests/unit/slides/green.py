"""A run whose map is known in closed form, and slides for it: of violet tissue the green is dark.

map = (1 - green) / 2 in [-1, 1], score = its mean; as segmentation logit = 20 (map - 0.6).
"""

import numpy as np

from data_pipelines.datasets import camelyon, segmentation
from data_pipelines.fields import changed
from tests import slide_files
from tests.unit import fake_run

LESION = (slice(160, 300), slice(330, 480))  # rows, columns of level 0 that are violet
SIZE = (520, 700)


class Method(fake_run.Method):
  """See the module's docstring."""

  def score(self, state, batch):
    found = (1 - batch["image"][..., 1:2]) / 2
    return {"map": found, "score": found.mean((1, 2, 3))}


class ScoreOnly(Method):
  """Without a map."""

  def score(self, state, batch):
    return {"score": super().score(state, batch)["score"]}


class Segmenter(Method):
  """Images in [0, 1]."""

  def score(self, state, batch):
    return {"logit": 20 * (0.4 - batch["image"][..., 1:2])}


def make(workdir, method="Method", crop=32, kind="anomaly", **predict):
  """Writes a workdir; `predict`: fields of config.predict.slide."""
  from configs import common
  c = common.base(kind)
  c.method = fake_run.config().method
  c.method.name = f"tests.unit.slides.green:{method}"
  c.model = fake_run.config().model
  c.data = changed(segmentation.defaults(), image_size=crop) if kind == "segmentation" else changed(
      camelyon.defaults(), image_root="patches/x20", crop_size=crop, image_size=crop)
  c.predict.slide.update(predict)
  if kind == "anomaly":
    c.predict.update(batch_size=4, threshold=0.55)
  workdir.mkdir(parents=True, exist_ok=True)
  return fake_run.write(workdir, c)


def image():
  """uint8 [520,700,3] with a violet lesion in the tissue."""
  picture = slide_files.tissue(*SIZE)
  picture[LESION] = np.array(slide_files.VIOLET, np.uint8)
  return picture
