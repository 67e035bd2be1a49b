"""trained_on.json as training measures it."""

import dataclasses

import ml_collections
import numpy as np
from PIL import Image
import pytest

from data_pipelines.dataset import ArraySource, DataSet
from medae_jax.core.trained_on import fit, record
from medae_jax.tasks import admit
from medae_jax.training import measure, start
from tests.image_files import dicom as dicom_file
from tests.unit.training import recorder

RNG = np.random.default_rng(0)


class Images(DataSet):
  name = "mine"

  def __init__(self, images, metas=None, several=False):
    source = ArraySource({"image": np.asarray(images, np.float32)}, metas)
    self._source = {"clean": source} if several else source

  def train(self):
    return self._source


def config(**data):
  return ml_collections.ConfigDict({"data": data})


def test_volumes_are_measured_without_background_and_by_scan():
  images = RNG.uniform(0.2, 0.8, (12, 8, 8, 2))
  images[:, :2] = 0
  metas = [{"id": str(i), "patient": f"p{i // 4}", "slice": i, "spacing": (1.0, 1.0, 2.0 + (i > 7))}
           for i in range(12)]
  found = measure.measure(config(modalities=("flair", "t1"), orientation="LPS", placement="scan",
                                 field_mm=192.0), Images(images, metas), {})
  assert (found.kind, found.modalities, found.channels, found.size) == (
      "volume", ("flair", "t1"), 2, (8, 8))
  assert found.background == 0.25 and found.low == 0 and 0.79 < found.high < 0.8
  assert found.spacing == (1.0, 1.0, 2.0) and found.orientation == "LPS" and found.examples == 12
  assert found.quantiles[0][0] > 0.2 and found.quantiles[0][10] == pytest.approx(0.5, abs=0.05)
  # Within a scan of four slices even noise is close to the whole.
  assert found.usual < 0.05
  assert fit.warning(found, fit.Seen("volume", spacing=(1.0, 1.0, 2.0)), images[:4]) == ""


def test_colour_and_dicom_words_come_from_the_files(tmp_path, caplog):
  metas = []
  for i in range(4):
    picture = Image.fromarray(RNG.integers(0, 255, (6, 6, 3), np.uint8))
    picture.save(tmp_path / f"{i}.png", dpi=(100, 100 * i or 200))
    metas.append({"id": str(i), "path": str(tmp_path / f"{i}.png")})
  found = measure.measure(config(), Images(RNG.uniform(0, 1, (4, 6, 6, 3)), metas), {})
  assert found.kind == "image" and found.coloured == 1 and found.dicom == () and found.modalities == ()
  assert found.background == 0 and found.orientation == "" and found.spacing == ()
  assert "3 of the 4 training images looked at have pixels that are not square, the first" in caplog.text
  assert "0.png: 100 x 200 dpi" in caplog.text and found.aspect == 1
  caplog.clear()
  for meta in metas:  # all alike: shapes are those of the training
    Image.open(meta["path"]).save(meta["path"], dpi=(100, 200))
  found = measure.measure(config(), Images(RNG.uniform(0, 1, (4, 6, 6, 3)), metas), {})
  assert found.aspect == pytest.approx(0.5, rel=1e-3) and "square" not in caplog.text
  seen, gate = fit.Seen("image", aspect=0.5, oblong="1 x 2"), admit.Gate(found, False)
  gate.form("a", seen)
  assert gate.taken() == ""
  gate.form("a", dataclasses.replace(seen, aspect=1.0, oblong=""))
  assert "are square, or no header says otherwise" in (said := gate.taken()) and "0.5 times as high" in said
  admit.Gate(None, False).form("a", seen)
  assert "its pixels are not square (1 x 2), and are read as if they were" in caplog.text


def test_pictures_of_one_or_two_greys_are_said(tmp_path):
  """A folder of masks given to predict was segmented like photographs, without a word."""
  gate, mask = admit.Gate(None, False), np.zeros((6, 7), np.uint8)
  for pixels, said in ((mask, "all of its pixels are alike: is it a picture?"),
                       (np.eye(6, 7, dtype=np.uint8) * 255, "it has two grey values alone, as masks have"),
                       (np.arange(42, dtype=np.uint8).reshape(6, 7), "")):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    gate.form("a", admit.picture([tmp_path / "a.png"]))
    found = gate.taken()
    assert found.startswith(said) if said else not found


def test_raw_radiographs_beside_processed_ones_are_said(tmp_path, caplog):
  kinds = ["FOR PRESENTATION", "FOR PROCESSING", "FOR PRESENTATION"]
  metas = [{"path": str(dicom_file(tmp_path / f"{i}.dcm", i + np.arange(16, dtype=np.uint8).reshape(4, 4),
                                   PresentationIntentType=k))} for i, k in enumerate(kinds)]
  images = np.zeros((3, 4, 4, 1))
  assert measure.measure(config(), Images(images, metas), {}).intents == ("processed", "raw")
  assert "1 of the 3 radiographs looked at are raw (FOR PROCESSING), the first " in caplog.text
  assert f"the first {metas[1]['path']}, the others" in caplog.text and (
      f"the first {metas[0]['path']}: " in caplog.text)
  caplog.clear()
  found = measure.measure(config(), Images(images[::2], metas[::2]), {})
  assert found.intents == ("processed",) and "raw" not in caplog.text
  gate = admit.Gate(found, False)
  for path, said in zip((m["path"] for m in metas), ("", "it is a raw radiograph", "")):
    gate.form("a", admit.picture([path]))
    assert said in (told := gate.taken()) and bool(said) == bool(told)


def test_images_that_a_wrong_window_has_made_flat_are_said(caplog):
  flat = np.ones((3, 4, 4, 1))
  for images, said in ((flat, True), (flat * np.arange(3)[:, None, None, None], False), (flat[:1], False)):
    caplog.clear()
    measure.measure(config(), Images(images), {})
    assert ("All 3 training images looked at are of one grey, 1, all over" in caplog.text) == said


def test_several_streams_are_measured_on_the_first_batch():
  batch = {"clean": {"image": np.full((2, 4, 4, 1), 0.5, np.float32), "index": np.arange(2)}}
  found = measure.measure(config(), Images(np.zeros((3, 4, 4, 1)), several=True), batch)
  assert found.low == found.high == 0.5 and found.examples == 2 and found.coloured is None
  assert measure.measure(config(), Images(np.zeros((1, 4, 4, 1)), several=True), {"x": np.zeros(3)}) is None


def test_training_writes_it_once_and_does_not_touch_it_when_it_resumes(tmp_path):
  recorder.run(tmp_path / "w")
  found = record.read(tmp_path / "w")
  assert (found.dataset, found.kind, found.high) == ("synthetic_numbers", "image", 11)
  assert found.mark == "synthetic"
  (tmp_path / "w" / record.FILE).unlink()  # as in workdirs of before this file
  run = start.open_run(recorder.config(), str(tmp_path / "w"))
  run.checkpoints.close()
  assert record.read(tmp_path / "w") is None


def test_synthetic_data_are_measured_before_the_first_checkpoint_and_files_at_once(tmp_path, monkeypatch):
  """Drawing half of the training images would keep the first step waiting."""
  for synthetic in (True, False):
    monkeypatch.setattr(recorder.Numbered, "synthetic", synthetic)
    workdir = tmp_path / str(synthetic)
    run = start.open_run(recorder.config(), str(workdir))
    assert (record.read(workdir) is None) == synthetic
    run.save(run.state)
    run.close()
    assert record.read(workdir).synthetic == synthetic


def test_the_usual_distance_is_that_of_nearly_all_and_the_ends_are_of_all():
  """Images of one value each: the distance of one from the mean is their difference in thousandths."""
  values = np.linspace(0.05, 0.95, 19)
  found = measure.measure(config(), Images(values[:, None, None, None] * np.ones((19, 4, 4, 1))), {})
  assert found.usual == pytest.approx(np.quantile(np.abs(values - 0.5), 0.95) / 1e-3, rel=1e-4)
  assert (found.low, found.high) == (pytest.approx(0.05), pytest.approx(0.95))


def test_the_background_is_that_of_the_fullest_slices_and_empty_ones_have_no_intensities():
  images = np.full((21, 20, 4, 1), 0.5)
  for i in range(21):
    images[i, :i] = 0  # the last one is empty
  metas = [{"id": str(i), "patient": f"p{i}", "slice": 0} for i in range(21)]
  found = measure.measure(config(modalities=("flair",)), Images(images, metas), {})
  assert found.background == pytest.approx(np.quantile(np.arange(21) / 20, 0.05))
  np.testing.assert_allclose(found.quantiles, 0.5)


@pytest.mark.parametrize("words, known", [(["CT", "MR", "CT"], ("CT", "MR")), (["CT", "", "CT"], ())])
def test_where_some_files_say_nothing_the_words_of_others_decide_nothing(monkeypatch, words, known):
  said = iter(words)
  monkeypatch.setattr(measure.finder, "kind_of", lambda path: "dicom")
  monkeypatch.setattr(measure.images, "read_values", lambda path: np.zeros((2, 2, 1)))
  monkeypatch.setattr(measure.dicom, "modality", lambda path: next(said))
  assert measure._of_files([{"path": str(i)} for i in range(3)]) == (0.0, known)
