"""What is found before the first step that would otherwise stop a run at its first validation, or its end."""

import jax
import ml_collections
import numpy as np
from PIL import Image
import pytest

from configs import dae_brats
from data_pipelines import dataset as datasets
from data_pipelines.brains import records, slices
from data_pipelines.dataset import ArraySource, DataSet
from data_pipelines.datasets import own_folder
from medae_jax.core import config as config_lib, scoring
from medae_jax.core.errors import UserError
from medae_jax.core.method import State
from medae_jax.methods import dae
from medae_jax.training import foresee, start, validate
from tests import tiny_methods
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
    ("guide_channel", 2, "config.method.score.guide_channel=2: images have 2 channels, counted from 0"),
    ("image_score", "foreground_mean", "")])
def test_a_filter_wider_than_the_images_is_refused_before_training(name, value, said):
  c = tiny_dae.config()
  with c.unlocked():
    c.method.score.update({name: value, **({"kind": "ssim"} if name == "window" else {}),
                           **({"guided": 2} if name == "guide_channel" else {})})
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


def asked_for(data, metric="val/loss"):
  return ml_collections.ConfigDict({"eval": {"splits": ("val", "test")}, "data": data,
                                    "train": {"best_metric": metric}})


def test_a_damaged_test_image_is_found_before_training(tmp_path, caplog):
  caplog.set_level("INFO")
  bad = folder_with_a_damaged_test_image(tmp_path / "mine")
  c = own_folder.defaults()
  c.update(dir=str(tmp_path / "mine"), image_size=(16, 16), name="own_folder")
  dataset = datasets.open_dataset(c, 0)
  whole = asked_for(c)
  with pytest.raises(UserError, match=str(bad)):
    foresee.look(whole, dataset)
  foresee.look(whole, dataset, seconds=-1)  # no time: said, not hidden
  assert "0 of the" in caplog.text and "read when they are scored" in caplog.text


class Labelled(DataSet):
  """A val split with such labels; -1 = not known."""
  name, splits = "labelled", ("val",)

  def __init__(self, labels):
    self.labels = np.array(labels, np.int32)

  def split(self, name):
    return ArraySource({"image": np.arange(len(self.labels), dtype=np.float32)[:, None, None, None],
                        "label": self.labels})


@pytest.mark.parametrize("labels, kinds", [([0, 0, -1], 1), ([1, 1], 1), ([-1, -1], 0), ([0, -1, 1], 2)])
def test_auroc_of_one_kind_is_refused_before_the_first_step(labels, kinds):
  look = lambda metric: foresee.look(asked_for(ml_collections.ConfigDict(), metric), Labelled(labels))
  look("val/loss")
  if kinds == 2:
    return look("val/image_auroc")
  with pytest.raises(UserError, match="it has one kind only"):
    look("val/image_auroc")


def test_images_that_nobody_labelled_are_no_normals_in_val_auroc():
  """-1 beside 0 was taken for the negative kind: normal images counted as the abnormal ones."""
  asked = config_lib.override(tiny_dae.config(), {"train.best_metric": "val/image_auroc"})
  check = validate.Validator(recorder.Method(recorder.config()), Labelled([-1, 1, 0, -1, 0, 1]), asked, None)
  state = State.create({"net": {"w": np.zeros(())}}, {"net": {}})
  assert check(state, 0, lambda: None) == {"val/image_auroc": 0.5}


def test_a_damaged_prepared_volume_is_found_before_training(tmp_path):
  """As of a set too large for its checksums to be compared when it is opened."""
  scans = {"val": [], "test": []}
  for k, split in enumerate(("val", "test", "test")):
    folder = tmp_path / f"P{k}"
    (folder / "records").mkdir(parents=True)
    array = np.ones((3, 8, 8, 1), np.float32)
    np.save(folder / "records" / "image.npy", array)
    mapped = records.MappedArray(folder / "records" / "image.npy", array.shape, array.dtype,
                                 records.file_sha256(folder / "records" / "image.npy"))
    scans[split].append(slices.Scan(f"P{k}", mapped, np.zeros((3, 8, 8, 1), np.uint8), np.arange(3),
                                    np.zeros(3, int), str(folder)))
  data = slices.SliceDataSet("prepared", False, scans, {})
  foresee.look(asked_for(ml_collections.ConfigDict({"dir": "whole"})), data)
  bad = tmp_path / "P2" / "records" / "image.npy"
  bad.write_bytes(bad.read_bytes()[:-4] + b"\0\0\0\1")
  with pytest.raises(UserError, match="P2.*is damaged"):
    foresee.look(asked_for(ml_collections.ConfigDict({"dir": "damaged"})), data)


class Chooses(tiny_methods.BatchNormMethod):
  """A method kept outside the package whose score has words of its own."""

  def score(self, state, batch):
    kinds = {"mean": lambda s: s}
    return kinds[self.config.method.score.kind](super().score(state, batch))


@pytest.mark.parametrize("fields, said", [
    ({"kind": "mean"}, ""), ({}, "the config has no field 'kind'"),
    ({"kind": "med"}, r"these fields of config.method.score: KeyError: 'med' .*test_foresee.py line")])
def test_score_fields_of_a_method_outside_are_met_before_the_first_step(fields, said):
  c = tiny_dae.config(size=8, channels=1)
  with c.unlocked():
    c.method = ml_collections.ConfigDict({"name": f"{__name__}:Chooses", "score": fields})
  method = Chooses(c)
  batch = {"image": np.ones((1, 8, 8, 1), np.float32)}
  state = jax.eval_shape(lambda: method.init(jax.random.key(0), batch))
  if not said:
    return scoring.trace(c, method, state, batch)
  with pytest.raises(UserError, match=said):
    scoring.trace(c, method, state, batch)
  if "no field" in said:  # the same of a method that is fitted at the end, whose state is not whole yet
    with pytest.raises(UserError, match=said):
      scoring.trace(c, method, state, batch, fitted=False)
  else:
    scoring.trace(c, method, state, batch, fitted=False)


@pytest.mark.parametrize("field", ["train.batch_size", "train.eval_batch_size", "eval.batch_size"])
def test_batches_that_fill_the_memory_are_refused(field):
  """The system ended the process while the first of them was read."""
  with pytest.raises(UserError, match=f"config.{field}=2000000000: its images alone take .* GB"):
    foresee.check_sizes(config_lib.override(dae_brats.get_config("smoke"), {field: 2_000_000_000}))
  foresee.check_sizes(dae_brats.get_config("smoke"))


class Chests(DataSet):
  """24 SYNTHETIC radiographs, of which `inverted` are negatives."""
  name, splits = "chests", ("test",)

  def __init__(self, inverted, alike=True):
    rng, (y, x) = np.random.default_rng(0), np.mgrid[-1:1:20j, -1:1:24j]
    shown = [alike * np.cos(3 * x) * np.cos(y) + rng.normal(0, 0.2, x.shape) for _ in range(24)]
    self.images = [1 - i if k < inverted else i for k, i in enumerate(shown)]

  def split(self, name):
    source = ArraySource({"image": np.stack(self.images)[..., None].astype(np.float32)})
    source.meta = lambda i: {"path": f"{i}.png"}
    return source


@pytest.mark.parametrize("inverted, alike, said", [(0, True, ""), (2, True, "2 of 24 images are dark where"),
                                                   (2, False, ""), (12, True, "")])
def test_negatives_among_radiographs_are_said(caplog, inverted, alike, said):
  """Exported without MONOCHROME1 they were trained on and scored like the others."""
  asked = ml_collections.ConfigDict({"dir": f"chests {inverted} {alike}"})
  foresee.look(asked_for(asked), Chests(inverted, alike))
  assert (said in caplog.text and "(MONOCHROME1)" in caplog.text) if said else "dark where" not in caplog.text


@pytest.mark.parametrize("flat", [0, 1])
def test_images_of_one_grey_are_said(caplog, flat):
  """All of them were, one among many was scored, or trained on, like the others."""
  chests = Chests(0)
  chests.images[:flat] = [np.full((20, 24), 0.3)] * flat
  foresee.look(asked_for(ml_collections.ConfigDict({"dir": f"flat {flat}"})), chests)
  said = "1 of the 24 images of test looked at are of one grey all over, the first 0.png"
  assert (said in caplog.text) == bool(flat) == ("one grey" in caplog.text)
