"""What may change of a run's config when something is scored with it (core/trained_on/changed.py)."""

import os
import re

import ml_collections
import pytest

from configs import common
from data_pipelines import dataset as datasets
from medae_jax.core import config as config_lib
from medae_jax.core.errors import UserError
from medae_jax.core.trained_on import changed


def run(name, method="dae", model=None, predict=None, **data):
  """The config of a run on a data set."""
  c = common.base()
  c.method = ml_collections.ConfigDict({"name": method, "loss": "l1",
                                        "score": {"median": 5, "threshold": 0.5}})
  c.model = ml_collections.ConfigDict(model or {"depth": 4, "dtype": "float32"})
  c.optim = ml_collections.ConfigDict({"lr": 0.1})
  c.data = datasets.module(name).defaults()
  c.data.update(data)
  c.predict.update(predict or {})
  return c.lock()


def said(caplog, trained, values, look=changed.check, **options):
  """"" where a change passes in silence, "warned: LINE" or "refused: LINE"."""
  caplog.clear()
  try:
    look(trained, config_lib.override(trained, values), **options)
  except UserError as e:
    assert "\n" not in str(e)
    return f"refused: {e}"
  return "".join(f"warned: {r.getMessage()}" for r in caplog.records)


# Data set, fields of the run, change, what is said ("" = nothing).
TABLE = [
    # What the network is shown.
    ("brats", {}, {"data.image_size": (64, 64)}, "refused: .*image_size=\\(64, 64\\).*with \\(128, 128\\)"),
    ("brats", {}, {"data.image_size": 128}, ""),  # a number for the pair
    ("brats", {}, {"data.image_size": [128, 128]}, ""),
    ("brats", {}, {"data.unit": "median"}, "refused: .*unit='median'.*with 'percentile'"),
    ("brats", {}, {"data.placement": "anatomy"}, "refused"),
    ("brats", {}, {"data.field_mm": 240.0}, "refused"),
    ("brats", {}, {"data.orientation": "RAS"}, "refused"),
    ("brats", {"orientation": ""}, {"data.orientation": "LPS"}, ""),
    ("brats", {"modalities": ("flair", "t1")}, {"data.modalities": ("t1", "flair")}, "refused"),
    ("brats", {"modalities": ("flair", "t1")}, {"data.modalities": ("t1", "t2")}, "refused"),  # t1 elsewhere
    ("brats", {"modalities": ("flair", "t1")}, {"data.modalities": ("flair",)}, "refused"),
    ("brats", {"modalities": ("flair", "t1")}, {"data.modalities": ("FLAIR", "T1")}, ""),
    ("brats", {"modalities": ("t1", "flair")}, {"data.modalities": ("t2", "flair")}, "warned: .*the place"),
    ("own_folder", {}, {"data.modalities": ("flair",)}, "refused"),  # a run on images
    ("own_folder", {}, {"data.signed": True}, "refused"),
    ("own_folder", {"window": (0, 4095)}, {"data.window": (0, 255)}, "refused"),
    ("own_folder", {"window": (0, 4095)}, {"data.window": (0, 0)}, "refused"),
    ("own_folder", {}, {"data.window": (0, 4095)}, "warned: .*window"),
    ("nih", {}, {"data.equalize_hist": True}, "refused"),
    ("nih", {}, {"data.equalize_hist_test": True}, "refused"),
    ("nih", {}, {"data.crop_size": 200}, "refused"),
    ("nih", {"root": "a"}, {"data.root": "b", "data.resize": 128}, "refused"),  # of other data, too
    ("chest_xray", {}, {"data.preparation": "published"}, "refused"),
    ("natural", {}, {"data.to_grayscale": True}, "refused"),
    ("segmentation", {}, {"data.mean_image": "mean.npy"}, "refused"),
    ("paired", {}, {"data.resize": (64, 64)}, "refused"),
    ("slides", {}, {"data.mpp": 0.5}, "refused: .*data.mpp"),
    ("slides", {}, {"data.magnification": 20.0}, "refused: .*data.magnification"),
    ("slides", {"root": "a"}, {"data.own_mpp": 0.5}, "refused"),
    ("slides", {"root": "a"}, {"data.own_mpp": 0.5, "data.root": "b"}, ""),
    # The same of predict.
    ("brats", {}, {"predict.orientation": "RAS"}, "refused: .*predict.orientation='RAS'.*with 'LPS'"),
    ("brats", {}, {"predict.orientation": "LPS"}, ""),
    ("brats", {"orientation": ""}, {"predict.orientation": "RAS"}, ""),
    ("slides", {}, {"predict.slide.magnification": 20.0}, "refused: .*patches of x10, these are of x20"),
    ("slides", {}, {"predict.slide.mpp": 1.0}, ""),  # which is x10
    ("slides", {}, {"predict.slide.mpp": 0.25}, "refused"),
    ("camelyon", {"image_root": "p/x20"}, {"predict.slide.magnification": 10.0}, "refused"),
    ("camelyon", {"image_root": "p/x20"}, {"data.image_root": "q/x40"}, "refused: .*data.image_root"),
    ("camelyon", {"image_root": "p"}, {"predict.slide.magnification": 10.0}, ""),  # nothing says it
    # Who is tested, of the run's own data; of other data it is another question.
    *[("own_folder", {"dir": "mine"}, {f"data.{k}": v}, f"refused: .*{k}={v!r}.*own data")
      for k, v in dict(split_seed=1, val_share=0.1, test_share=0.3, folds=5, split_table="t.csv",
                       group_pattern="x", grouping="file").items()],
    ("own_folder", {"dir": "mine"}, {"data.split_seed": 1, "data.dir": "other"}, ""),
    ("own_folder", {"dir": "mine"}, {"data.split_seed": 1, "data.dir": "./mine"}, "refused"),
    ("own_folder", {"dir": "~/mine"}, {"data.split_seed": 1, "data.dir": os.path.expanduser("~/mine")},
     "refused"),
    ("nih", {"root": "a"}, {"data.fold": 1}, "refused: .*fold=1.*with -1"),
    ("nih", {"root": "a"}, {"data.lists_root": "b"}, "refused"),
    ("nih", {"root": "a", "lists_root": "b"}, {"data.lists_root": "./b/"}, ""),
    ("nih", {"root": "a"}, {"data.layout": "folder"}, "refused"),
    ("nih", {"root": "a"}, {"data.layout": "folder", "data.root": "b"}, ""),
    ("segmentation", {"dir": "a"}, {"data.manifest": "other.csv"}, "refused"),
    ("segmentation", {"dir": "a"}, {"data.clean_seed": 1}, "refused"),
    ("natural", {}, {"data.normal_class": 3}, "refused"),
    ("annotations", {}, {"data.frames": (9, 9, 9)}, "refused"),  # frames move to other splits
    # What may change.
    *[("brats", {"dir": "a"}, {f"data.{k}": v}, "") for k, v in dict(
        dir="b", workers=3, cache=False, storage="float16", prepared_dir="p", strict=True, limit_train=3,
        lesion_values=(2,), noise_std=0.1, resident=True).items()],
    ("brats", {}, {"data.n_patients": (1, 1, 1)}, ""),
    ("brats", {}, {"data.name": "synthetic"}, "warned: .*that data set"),
    ("brats", {}, {"eval.batch_size": 2, "eval.bootstrap": 0, "train.steps": 3, "predict.threshold": 0.1,
                   "method.score.median": 0, "model.dtype": "bfloat16", "seed": 1}, ""),
    # Another network.
    ("brats", {}, {"model.depth": 3}, "refused: .*model.depth=3.*with 4"),
    ("brats", {}, {"method.loss": "l2"}, "refused"),
    ("brats", {}, {"method.name": "ae"}, "refused"),
]


@pytest.mark.parametrize("name,own,values,expected", TABLE, ids=str)
def test_a_change_is_refused_warned_of_or_passes(name, own, values, expected, caplog):
  trained = run(name, **own)
  found = said(caplog, trained, values)
  if not expected:
    assert not found
  else:
    assert re.match(expected, found), found
  if expected.startswith("refused"):
    assert "predict.force=True insists" in found and "leave the field out" in found
    forced = said(caplog, trained, {**values, "predict.force": True})
    assert forced.startswith("warned: ") and "all the same" in forced


def test_a_method_and_a_data_set_from_outside_may_call_things_as_they_like(caplog):
  trained = config_lib.override(run("brats", method="mine:Method"), {})
  assert not said(caplog, trained, {"method.loss": "l2"})
  with trained.unlocked():
    trained.data.odd = 1
  assert "what this changes is not known" in said(caplog, trained, {"data.odd": 2})


def test_who_converts_published_parameters_says_how_they_were_trained(caplog):
  trained = run("brats", dir="a")
  told = lambda **values: said(caplog, trained, {f"data.{k}": v for k, v in values.items()}, converted=True)
  assert told(placement="anatomy").startswith("warned: ") and not told(folds=3)
  assert said(caplog, trained, {"model.depth": 3}, converted=True).startswith("refused")


@pytest.mark.parametrize("own,made,values,expected", [
    ({}, {"data.unit": "median"}, {}, "refused: calibration.json was made with .*'median'.*'percentile'"),
    ({"unit": "median"}, {"data.unit": "median"}, {}, ""),
    ({}, {"data.image_size": (64, 64)}, {}, "refused: .*image_size"),
    ({"orientation": ""}, {}, {"data.orientation": "LPS"}, ""),
    ({"orientation": ""}, {"data.orientation": "LPS"}, {}, "refused: .*orientation"),
    ({"orientation": ""}, {"data.orientation": "LPS"}, {"predict.orientation": "LPS"}, ""),
    ({}, {}, {"method.score.median": 0}, "warned: config.method.score has median=0 .there 5.*may not fit"),
    ({}, {"method.score.median": 0}, {}, "warned: .*median=5 .there 0"),
    ({}, {"method.score.median": 0}, {"method.score.median": 0}, ""),
    ({}, {}, {"method.score.threshold": 0.1}, "")])  # a threshold by hand, of restoration
@pytest.mark.parametrize("older", [False, True])
def test_thresholds_hold_for_what_they_were_made_with(own, made, values, expected, older, caplog):
  """An older calibration.json notes nothing of the score, and four fields of the preparation."""
  trained = run("brats", **own)
  notes = changed.record(config_lib.override(trained, made))
  if older:
    notes = {k: notes["prepared"][k] for k in ("orientation", "placement", "field_mm", "unit")}
    if "data.image_size" in made or "method.score.median" in made:
      return
  found = lambda values: said(caplog, trained, values, lambda own, asked: changed.check_calibration(
      asked, {"threshold": 0.1, **notes}, own))
  assert re.match(expected or "$", found(values)), found(values)
  if expected.startswith("refused"):
    assert "--mode=evaluate makes it afresh" in found(values)
    assert found({**values, "predict.force": True}).startswith("warned: ")


def test_without_thresholds_nothing_can_fail_to_fit(caplog):
  trained = run("brats")
  asked = config_lib.override(trained, {"method.score.median": 0})
  changed.check_calibration(asked, {"map_max": 1.0}, trained)
  assert not caplog.text


@pytest.mark.parametrize("values,expected", [
    ({"data.unit": "median"}, "refused: .*unit='median'.*train.init_from"),
    ({"data.fold": 1}, "refused: .*another --workdir"),
    ({"data.fold": 1, "data.dir": "b"}, ""),
    ({"train.steps": 1200, "optim.lr": 0.5}, r"warned: .*optim.lr=0.5 .*train.steps=1200 \(1000 so far"),
    ({"train.batch_size": 8, "train.accum": 2}, r"warned: [^,]*batch_size=8 \(16 so far"),
    ({"data.workers": 3, "method.loss": "l2", "predict.orientation": "RAS", "predict.force": True}, "")])
def test_a_training_goes_on_with_its_own_preparation_and_split(values, expected, caplog):
  begun = run("brats", dir="a", folds=5)
  assert re.match(expected or "$", said(caplog, begun, values, changed.check_resumed))
  older = begun.copy_and_resolve_references()
  with older.unlocked():
    del older.data.unit  # a field that is younger than the run
  assert not said(caplog, begun, {}, lambda _, asked: changed.check_resumed(older, asked))


def test_edited_files_meet_no_fault_here(caplog):
  """What is wrong with them is said by those who read it."""
  trained = run("brats")
  for prepared in (None, {"modalities": 3}, {"modalities": [1, None]}, {"window": "x", "unit": "percentile"}):
    try:
      notes = {"prepared": prepared, "scored_with": None}
      changed.check_calibration(trained, {"threshold": 1.0, **notes}, trained)
    except UserError:
      assert "modalities" in prepared
  for group, field, value in (("predict", "slide", 3), ("data", "modalities", -1), ("data", "mpp", "x")):
    odd = trained.copy_and_resolve_references()
    with odd.unlocked(), odd.ignore_type():
      odd[group][field] = value
    assert said(caplog, odd, {"eval.batch_size": 2}) == ""


@pytest.mark.parametrize("field", ["val_share", "split_seed", "group_pattern"])
def test_a_split_changes_nothing_where_no_data_are_opened(field, caplog):
  """predict and serve: it is said, and nobody is kept from predicting."""
  trained = run("own_folder", dir="mine")
  value = {"val_share": 0.1, "split_seed": 1, "group_pattern": "x"}[field]
  found = said(caplog, trained, {f"data.{field}": value}, splits=False)
  assert re.match(f"warned: .*{field}=.* changes nothing here: the run's own data are not read", found)
