"""What smaller files of an exported score cost, with a runtime whose files are known."""

import pathlib
import sys
import types

import numpy as np
import pytest
from sklearn import metrics as sk

from data_pipelines import dataset as datasets
from data_pipelines.errors import UserError
from medae_jax.tasks import precision
from tests.unit import fake_run

NOISE = {"score.onnx": 0.0, "score_int8.onnx": 0.4}


class Session:
  """map = channel 0 with noise, score = its highest pixel."""

  def __init__(self, path, providers):
    self._noise = NOISE[pathlib.Path(path).name]

  def get_outputs(self):
    return [types.SimpleNamespace(name=n) for n in ("map", "recon", "score")]

  def run(self, names, batch):
    assert names == ["map", "score"] and batch["image"].dtype == np.float32
    noise = np.random.default_rng(0).random(batch["image"].shape[:3] + (1,), np.float32)
    found = batch["image"][..., :1] + np.float32(self._noise) * noise
    return [found, found.max((1, 2, 3))]


@pytest.fixture
def paths(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace(InferenceSession=Session))
  for name in NOISE:
    (tmp_path / name).write_bytes(b"x" * len(name))
  return [tmp_path / name for name in NOISE]


def test_losses_are_those_of_scikit_learn(paths):
  config = fake_run.config()
  found = precision.measure(config, paths)
  test = datasets.open_dataset(config.data, config.seed).split("test").read(np.arange(11))
  assert found["split"] == "test" and found["images"] == 11
  exact, small = (found["files"][n] for n in NOISE)
  want = sk.average_precision_score(test["mask"].ravel() > 0, np.float16(test["image"][..., 0]).ravel())
  assert exact["pixel_ap"] == pytest.approx(want) and exact["pixel_ap_loss"] == exact["map_difference"] == 0
  assert small["pixel_ap_loss"] == pytest.approx(exact["pixel_ap"] - small["pixel_ap"])
  assert small["pixel_ap_loss"] > 0.01 and 0.35 < small["map_difference"] <= 0.4
  assert small["bytes"] == len("score_int8.onnx") and exact["image_ap"] == pytest.approx(
      sk.average_precision_score(test["label"], test["image"][..., 0].max((1, 2))))


def test_without_truth_or_data_it_is_said(paths, monkeypatch):
  one = precision.measure(fake_run.config(masks=False, labels=False), paths)["files"]["score_int8.onnx"]
  assert one["pixel_ap"] is one["image_ap"] is one["image_ap_loss"] is None and one["map_difference"] > 0.3

  def gone(*_):
    raise UserError("config.data.dir is\nempty")
  monkeypatch.setattr(datasets, "open_dataset", gone)
  assert precision.measure(fake_run.config(), paths) == {"not_measured": "config.data.dir is empty"}


def test_of_many_images_some_are_taken_evenly_and_unknown_labels_are_left_out(paths, monkeypatch):
  monkeypatch.setattr(precision, "_MOST", 4)
  assert precision.measure(fake_run.config(), paths)["images"] == 4  # of 11 every third
  values, labels = np.array([0.9, 0.5, 0.4, 0.1]), np.array([-1, 1, 0, 1])
  assert precision._ap(values, labels) == pytest.approx(sk.average_precision_score(labels[1:], values[1:]))
  assert precision._ap(values, np.array([-1, 1, 1, 1])) is None
  small = np.ones((4, 2, 2, 1), np.float32)
  monkeypatch.setattr(precision, "_scored", lambda path, images: (small, np.arange(4.0), 0.0))
  found = precision.measure(fake_run.config(), paths)["files"]["score.onnx"]
  assert found["pixel_ap"] is None and found["image_ap"] is not None  # maps of another size than the masks


@pytest.mark.parametrize("label, ap", [(None, 0.5), ([1, 0, 0, 0], 1.0)])
def test_labels_are_those_of_the_data_and_else_say_whether_a_mask_has_a_mark(paths, monkeypatch, label, ap):
  """Marks on the images of ranks 2 and 4: AP (1/2 + 2/4) / 2. Seconds lie between two looks at the clock."""
  clock = types.SimpleNamespace(monotonic=iter([1.0, 3.5, 10.0, 14.0]).__next__)
  monkeypatch.setattr(precision, "time", clock)
  image = np.float32([0.9, 0.7, 0.5, 0.3])[:, None, None, None] * np.ones((1, 2, 2, 1), np.float32)
  mask = np.zeros((4, 2, 2, 1), np.float32)
  mask[1, 0, 0] = mask[3] = 1
  batch = {"image": image, "mask": mask, **({} if label is None else {"label": np.array(label)})}
  monkeypatch.setattr(precision, "_examples", lambda *_: [batch])
  found = precision.measure(fake_run.config(), paths)["files"]
  assert found["score.onnx"]["image_ap"] == pytest.approx(ap)
  assert [f["seconds"] for f in found.values()] == [2.5, 4.0]


def test_a_thousand_images_are_measured():
  source = datasets.ArraySource({"image": np.zeros((1025, 1, 1, 1), np.float32)}, [{}] * 1025)
  assert sum(len(b["image"]) for b in precision._examples(source, 128)) == 513  # every second
