"""What is found before the first step that would otherwise stop a run at its first validation, or its end."""

import ml_collections
import numpy as np
from PIL import Image
import pytest

from data_pipelines import dataset as datasets
from data_pipelines.dataset import ArraySource, DataSet
from data_pipelines.datasets import own_folder
from medae_jax.core import config as config_lib
from medae_jax.core.errors import UserError
from medae_jax.methods import dae
from medae_jax.training import foresee, start
from tests.unit import tiny_dae
from tests.unit.training import recorder


class Squares(DataSet):
  """16x16 images of two channels."""
  name, splits = "squares", ("test",)

  def validation(self):
    return ArraySource({"image": np.ones((2, 16, 16, 2), np.float32)})

  def split(self, name):
    return self.validation()


@pytest.mark.parametrize("name,value,said", [
    ("median", 33, "33x33 median needs images larger than 16 px, got 16x16"),
    ("window", 17, "windows of 17x17 needs images of that size, got 16x16"),
    ("gaussian", 60.0, "config.method.score.gaussian=60.0 needs images of at least 240 px, got 16x16"),
    ("image_score", "foreground_mean", "")])
def test_a_filter_wider_than_the_images_is_refused_before_training(name, value, said):
  c = tiny_dae.config()
  with c.unlocked():
    c.method.score.update({name: value, **({"kind": "ssim"} if name == "window" else {})})
  method = dae.Method(c)
  batch = {"image": np.ones((4, 16, 16, 2), np.float32)}
  check = lambda: foresee.check(method, method.stages(), c, Squares(), batch, start.abstract_state)
  if not said:
    return check()
  with pytest.raises(UserError, match=said):
    check()


@pytest.mark.parametrize("metric,said", [
    ("val/los", "'val/los' is not among the validation numbers: val/image, val/image_auroc, val/loss, "),
    ("val/image", ""), ("val/image_auroc", "")])
def test_a_metric_that_no_validation_has_is_refused_at_the_start(tmp_path, monkeypatch, metric, said):
  monkeypatch.setattr(recorder.Method, "train_step", lambda *_, **__: 1 / 0)
  if said:
    with pytest.raises(UserError, match=said):
      recorder.run(tmp_path / "w", train__best_metric=metric)
  else:
    with pytest.raises(ZeroDivisionError):
      recorder.run(tmp_path / "w", train__best_metric=metric)


def test_auroc_of_a_set_without_val_is_refused():
  c = config_lib.override(tiny_dae.config(), {"train.best_metric": "val/image_auroc"})
  with pytest.raises(UserError, match="needs a split val, which squares does not have"):
    foresee.check_metric(c, Squares(), None)


def folder_with_a_damaged_test_image(root):
  rng = np.random.default_rng(0)
  for i in range(6):
    for side, n in (("normal", 6), ("abnormal", 2)):
      if i < n:
        path = root / side / f"{side}{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).save(path)
  bad = root / "abnormal" / "abnormal1.png"
  bad.write_bytes(bad.read_bytes()[:-40])
  return bad


def test_a_damaged_test_image_is_found_before_training(tmp_path, caplog):
  caplog.set_level("INFO")
  bad = folder_with_a_damaged_test_image(tmp_path / "mine")
  c = own_folder.defaults()
  c.update(dir=str(tmp_path / "mine"), image_size=(16, 16), name="own_folder")
  dataset = datasets.open_dataset(c, 0)
  whole = ml_collections.ConfigDict({"eval": {"splits": ("val", "test")}, "data": c})
  with pytest.raises(UserError, match=str(bad)):
    foresee.look(whole, dataset)
  foresee.look(whole, dataset, seconds=-1)  # no time: said, not hidden
  assert "0 of the" in caplog.text and "read when they are scored" in caplog.text
