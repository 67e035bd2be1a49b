"""Whose data an evaluation is of: the run's own, whatever the spelling of their folder, or others'."""

import types

import numpy as np
import pytest

from data_pipelines.dataset import ArraySource
from medae_jax.core.trained_on import record
from medae_jax.tasks import external
from tests.unit import fake_run


def test_the_runs_own_folder_has_many_spellings(tmp_path, monkeypatch):
  (tmp_path / "mine").mkdir()
  (tmp_path / "link").symlink_to("mine")
  monkeypatch.chdir(tmp_path)
  run = tmp_path / "run"
  fake_run.files.write_json(run / "config.json", fake_run.config(dir="mine", manifest="labels.csv").to_dict())
  for own in ("mine", "./mine/", "link", str(tmp_path / "mine")):
    assert external.folder(run, {"data.dir": own, "data.labels": False}) is None
  one, two = (external.folder(run, {"data.dir": d}) for d in ("other", "there/other"))
  assert one.parent == two.parent == run / "external" and one != two
  assert one.name[:6] == two.name[:6] == "other_"
  assert external.folder(run, {"data.manifest": "b.csv"})  # where predict.force insists


def test_images_that_the_run_knows_are_said(tmp_path, caplog):
  """A test set of another folder held renamed training images, and its results were excellent."""
  run, own, other = tmp_path / "run", tmp_path / "own", tmp_path / "other"
  fake_run.files.write_json(run / "config.json", fake_run.config(dir=str(own)).to_dict())
  own.mkdir()
  other.mkdir()
  for i in range(4):
    (own / f"a{i}.png").write_bytes(bytes([i]) * 99)
    (other / f"z{i}.png").write_bytes(bytes([i]) * 99)
  source = lambda *numbers: ArraySource({"image": np.zeros((len(numbers), 1))},
                                        [{"path": str(other / f"z{i}.png")} for i in numbers])
  external.say_known(run, {"test": source(0, 1)})  # nothing says which images these were
  (run / "splits.csv").write_text("file,split\na0.png,train\na1.png,val\na2.png,test\na3.png,train\n")
  external.say_known(run, {"test": source(2)})
  assert not caplog.text
  external.say_known(run, {"val": source(1), "test": source(0, 2)})
  assert "2 file(s) of this set are, byte for byte, some that the run was trained on" in caplog.text
  assert "other/z1.png and " in caplog.text and "own/a1.png (val)" in caplog.text


@pytest.mark.parametrize("kind", ["image", "volume"])
def test_a_set_of_other_intensities_is_said(caplog, kind):
  """Negatives were evaluated without a word; predict warns of each."""
  quantiles = (tuple(np.linspace(0.5, 0.9, len(record.LEVELS))),)
  told = types.SimpleNamespace(kind=kind, channels=1, quantiles=quantiles, usual=0.1, placement="",
                               coloured=0)
  images = np.random.default_rng(0).uniform(0.5, 0.9, (40, 6, 5, 1)).astype(np.float32)
  of = lambda values: {"test": ArraySource({"image": values}, [{} for _ in values])}
  external.say_unusual(told, of(images))
  external.say_unusual(None, of(1 - images))
  mixed = images.copy()
  mixed[:4] = 1 - mixed[:4]
  external.say_unusual(told, of(mixed))
  assert not caplog.text
  external.say_unusual(told, of(1 - images))
  assert "test of this set, by 32 images that were looked at: its intensities are far" in caplog.text


def test_a_data_set_of_another_name_is_opened_without_fields_that_it_lacks():
  """A run on drawn annotations could not be evaluated on real pairs: eval_seed was no field of these."""
  import dataclasses

  import ml_collections

  @dataclasses.dataclass
  class Opened:
    config: object
  data = {"name": "paired", "dir": "d", "eval_seed": 7, "marks": {"size": 1.0}}
  run = Opened(ml_collections.ConfigDict({"data": data, "seed": 3}).lock())
  known = {"name": "paired", "dir": "", "channels": 1}
  own = lambda asked, known=known: external.opened_as(run, asked, known).config.data.to_dict()
  assert own({"data.name": "paired", "data.dir": "d"}) == {"name": "paired", "dir": "d"}
  assert set(own({"data.name": "paired", "data.marks.size": 2.0})) == {"name", "dir", "marks"}
  assert own({"data.dir": "d"}) == own({"data.name": "paired"}, None) == data == run.config.data.to_dict()
  assert external.opened_as(run, {"data.name": "paired"}, known).config.seed == 3


@pytest.mark.parametrize("elsewhere", [None, "other"])
def test_the_data_of_others_are_opened_to_be_scored_alone(tmp_path, monkeypatch, elsewhere):
  from data_pipelines import scored_alone
  from medae_jax import evaluate
  config = fake_run.config(name="paired")
  run = types.SimpleNamespace(config=config, info={}, image_shape=None)
  opened = lambda *_: (_ for _ in ()).throw(InterruptedError(scored_alone.now()))
  for where, name, value in ((external, "folder", lambda *_: elsewhere),
                             (evaluate.datasets, "open_dataset", opened),
                             (evaluate.trained, "load", lambda *_, **__: run),
                             (evaluate.base, "check", print),
                             (evaluate.scoring, "check_fields", print), (evaluate.base, "plugin", print)):
    monkeypatch.setattr(where, name, value)
  with pytest.raises(InterruptedError, match=str(bool(elsewhere))):
    evaluate.evaluate(tmp_path)
