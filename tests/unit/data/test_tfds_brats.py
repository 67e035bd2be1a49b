"""The TFDS builder: built from local NIfTI, read back by name of folder, equal to the source."""

import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_pipelines import dataset as datasets
from data_pipelines.brains import tfds_brats
from data_pipelines.datasets import synthetic

CONFIG = {"name": "brats", "image_size": (16, 12), "workers": 1}


@pytest.fixture(name="built", scope="module")
def built_fixture(tmp_path_factory):
  base = tmp_path_factory.mktemp("tfds")
  synthetic.write_nifti(base / "scans", 4, shape=(20, 18, 5), splits=(2, 1, 1))
  config = tfds_brats.BratsConfig(name="tiny", image_size=(16, 12), prepared_dir=str(base / "p"))
  builder = tfds_brats.MedaeBrats(data_dir=str(base / "out"), config=config)
  builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(manual_dir=str(base / "scans")))
  return base, builder.data_dir


def test_is_an_ordinary_tfds_set(built):
  base, folder = built
  builder = tfds.builder_from_directory(folder)
  assert set(builder.info.splits) == {"train", "val", "test"}
  assert builder.info.metadata["synthetic"] is True and "scans" in builder.info.metadata["source"]
  dataset = datasets.open_dataset(
      {**CONFIG, "dir": str(base / "scans"), "prepared_dir": str(base / "p")}, 0)
  for split in ("train", "val", "test"):
    rows = list(tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False)))
    scans = {s.patient: s for s in dataset.scans[split]}
    assert len(rows) == sum(len(s.slices) for s in scans.values())
    for row in rows:
      scan = scans[row["patient"].decode()]
      place = list(scan.slices).index(row["slice"])
      np.testing.assert_array_equal(row["image"], scan.image[place])
      np.testing.assert_array_equal(row["mask"], scan.mask[place])
      assert row["label"] == (scan.lesion_px[place] > 0)


def test_reading_it_equals_reading_the_volumes(built):
  base, folder = built
  a = datasets.open_dataset({**CONFIG, "tfds_dir": str(base / "out")}, 3)
  b = datasets.open_dataset(
      {**CONFIG, "dir": str(base / "scans"), "prepared_dir": str(base / "p")}, 3)
  assert a.synthetic and a.name == b.name and a.describe()["splits"] == b.describe()["splits"]
  assert a.describe()["tfds_dir"] == str(folder)
  for mine, theirs in ((a.train(), b.train()), (a.split("val"), b.split("val")),
                       (a.split("test"), b.split("test"))):
    x, y = (s.read(np.arange(len(s))) for s in (mine, theirs))
    for key in y:
      np.testing.assert_array_equal(x[key], y[key])
    assert [mine.meta(i)["id"] for i in range(len(mine))] == [
        theirs.meta(i)["id"] for i in range(len(theirs))]


def test_another_size_or_no_set_is_said(built, tmp_path):
  base, _ = built
  with pytest.raises(ValueError, match=r"images \(16, 12, 4\)"):
    datasets.open_dataset({**CONFIG, "image_size": 8, "tfds_dir": str(base / "out")}, 0)
  with pytest.raises(FileNotFoundError, match="tfds_dir.*found 0"):
    datasets.open_dataset({**CONFIG, "tfds_dir": str(tmp_path)}, 0)


@pytest.mark.slow
def test_command_line(built, tmp_path):
  base, _ = built
  shutil.copytree(base / "scans", tmp_path / "scans")
  done = subprocess.run(
      [sys.executable, "-m", "data_pipelines.brains.tfds_brats", f"--manual_dir={tmp_path / 'scans'}",
       "--config=flair_t1_t1ce", f"--data_dir={tmp_path / 'out'}"], capture_output=True, text=True,
      env={"XDG_CACHE_HOME": str(tmp_path), "PATH": "", "HOME": str(tmp_path)}, check=False)
  assert done.returncode == 0, done.stderr[-2000:]
  builder = tfds.builder_from_directory(done.stdout.strip().splitlines()[-1])
  assert builder.info.features["image"].shape == (128, 128, 3)


def test_slices_of_a_scan_stand_in_their_order_whatever_the_order_of_the_rows(tmp_path, monkeypatch):
  """Sets that others have built may be shuffled; volumes are made of these slices."""
  (tmp_path / "dataset_info.json").write_text("{}")
  rows = [{"patient": p.encode(), "slice": z, "image": np.full((2, 3, 1), z + ord(p), np.float32),
           "mask": np.full((2, 3, 1), z == 7, np.uint8)}
          for p, z in (("b", 7), ("a", 2), ("b", 3), ("a", 10), ("b", 5))]
  builder = types.SimpleNamespace(
      info=types.SimpleNamespace(features={"image": np.zeros((2, 3, 1))}, metadata={"modalities": ["flair"]},
                                 splits=["val"]), as_dataset=lambda split, shuffle_files: rows)
  monkeypatch.setattr(tfds_brats.tfds, "builder_from_directory", lambda folder: builder)
  monkeypatch.setattr(tfds_brats.tfds, "as_numpy", iter)
  found, about = tfds_brats.read_scans(tmp_path, {"image_size": (2, 3), "modalities": ("flair",),
                                                  "group_pattern": "", "grouping": "names"})
  assert {s.patient: s.slices.tolist() for s in found["val"]} == {"b": [3, 5, 7], "a": [2, 10]}
  for scan in found["val"]:
    assert [image[0, 0, 0] - ord(scan.patient) for image in scan.image] == scan.slices.tolist()
    assert scan.lesion_px.tolist() == [6 * (z == 7) for z in scan.slices]
  assert not found["train"] and about["preparation"] == {"modalities": ["flair"], "image_size": [2, 3]}


@pytest.mark.parametrize("more, config, folder", [
    ([], None, None), (["--config", "flair", "--data_dir", "there"], "flair", "there")])
def test_the_program_hands_on_its_flags(monkeypatch, capsys, more, config, folder):
  asked = []
  build = lambda download_config: asked.append(download_config.manual_dir)
  def made(**given):
    asked.append(given)
    return types.SimpleNamespace(data_dir="prepared", download_and_prepare=build)
  made.BUILDER_CONFIGS = tfds_brats.MedaeBrats.BUILDER_CONFIGS
  monkeypatch.setattr(tfds_brats, "MedaeBrats", made)
  monkeypatch.setattr(sys, "argv", ["program", "--manual_dir", "volumes", *more])
  tfds_brats.main()
  assert asked == [{"data_dir": folder, "config": config or made.BUILDER_CONFIGS[0].name}, "volumes"]
  assert capsys.readouterr().out == "prepared\n"
