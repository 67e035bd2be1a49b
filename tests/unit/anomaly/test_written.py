"""What predict writes besides the map, by hand: scales of BIDS and DICOM, numbers of slides, resuming."""

import contextlib
import json
import types

import ml_collections
import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.tasks.anomaly.written import bids, dicom_objects
from medae_jax.tasks.slides import whole, work, written


# ------------------------------------------------------------------------------- BIDS and DICOM
@pytest.mark.parametrize("highest, scale", [(2.0, 4.0), (5.0, 5.0)])
def test_maps_of_a_run_share_a_scale_but_for_those_beyond_it(tmp_path, monkeypatch, highest, scale):
  kept, said = {}, []
  monkeypatch.setattr(bids.nifti, "write_like", lambda path, array, *_: kept.update({path.name: array}))
  monkeypatch.setattr(bids.Derivatives, "_sidecar", lambda self, path, scan, text, more: said.append(more))
  layout, scan = bids.Derivatives({"map_max": 4.0}), types.SimpleNamespace(name="sub-1")
  layout.map(scan, tmp_path, np.array([0.0, highest], np.float32), None, 1.0)
  layout.mask(scan, tmp_path, np.array([0, 1]), None, 1.0)
  assert said[0]["AnomalyScale"] == scale and said[1]["ThresholdOfProbseg"] == 1 / scale
  (shares,) = [array for name, array in kept.items() if "probseg" in name]
  np.testing.assert_allclose(shares, [0, highest / scale])


def dicom(monkeypatch, fails):
  monkeypatch.setattr(dicom_objects.dicom_seg, "available", lambda: True)
  monkeypatch.setattr(dicom_objects.dicom_seg, "explained", lambda files: contextlib.nullcontext())
  monkeypatch.setattr(dicom_objects.dicom_seg, "sources", lambda files: [])

  def write(targets, heads, mask, anomaly, scale, threshold, version):
    for target in targets:
      target.write_bytes(b"x")
    if fails:
      raise UserError("no place")
  told = []
  monkeypatch.setattr(dicom_objects.dicom_seg, "write", write)
  monkeypatch.setattr(dicom_objects.dicom_sr, "write", lambda path, heads, made, found, _: told.append(found))
  return told


def test_dicom_objects_scale_volumes_and_what_is_left_of_those_that_fail(tmp_path, monkeypatch):
  scan = types.SimpleNamespace(name="s", title="s", files={"t1": "key"}, series={"key": ("a.dcm",)})
  row, warned = {"mask_ml": 1.5, "score": 2.0, "threshold": 0.5, "called_abnormal": 0}, []
  told = dicom(monkeypatch, fails=False)
  made = dicom_objects.DicomResults("auto", {"map_max": 4.0})
  warn = lambda *words: warned.append(words)
  write = lambda top: made.write(scan, "t1", tmp_path, np.array([top]), None, row, warn)
  assert write(2.0) == {"seg_scale": 4.0} and write(5.0) == {"seg_scale": 5.0}
  assert 1500.0 in vars(told[0]).values()  # cubic millimetres
  for path in tmp_path.iterdir():
    path.unlink()
  dicom(monkeypatch, fails=True)
  assert write(2.0) == {} and not list(tmp_path.iterdir()) and "no place" in warned[0][1]
  with pytest.raises(UserError, match="no place"):
    dicom_objects.DicomResults("True", None).write(scan, "t1", tmp_path, np.ones(1), None, row, None)


# --------------------------------------------------------------------------------------- slides
def test_a_slide_scored_for_other_settings_begins_again(tmp_path):
  def opened(key):
    return work.Work(tmp_path / "w", key, (4, 4), 4)
  first = opened("k")
  first.put(0, 0, np.array([[0, 0], [0, 1]]), np.ones((2, 2, 2), np.float32), np.array([0.5, 0.75]))
  first.note()
  again = opened("k")
  assert again.done == 1 and again.scores.tolist() == [0.5, 0.75, 0, 0] and again.map[0, 3] == 1
  assert opened("other").done == 0


def test_the_key_of_a_slide_changes_with_everything_that_its_numbers_depend_on(tmp_path):
  (tmp_path / "s.svs").write_bytes(b"x")
  fields = {"threshold": 0.5, "_tile_threshold": 0.25, "_step": 3}
  groups = {**{g: {"a": 1} for g in ("method", "model", "data")},
            "predict": {"input": "x", "output": "y", "a": 1}}

  def key(of=groups, **changed):
    made = object.__new__(whole.Predictor)
    vars(made).update(fields | changed, config=ml_collections.ConfigDict(of))
    return made._key(tmp_path / "s.svs")
  assert key() == key({**groups, "predict": {"input": "z", "output": "z", "a": 1}})
  others = [key(**{name: 9}) for name in fields] + [key({**groups, g: {**groups[g], "a": 2}}) for g in groups]
  assert len({key(), *others}) == 8


def test_numbers_of_a_slide_by_hand(tmp_path, monkeypatch):
  done = work.Work(tmp_path / "w", "k", (4, 4), 5)
  done.put(0, 0, np.zeros((5, 2), int), np.full((5, 2, 2), 0.9, np.float32),
           np.array([0.1, 0.5, 0.3, 0.2, 0.4]))
  slide = types.SimpleNamespace(mpp=0.5)
  plan = types.SimpleNamespace(places=np.zeros((5, 2)), area=8e6)
  monkeypatch.setattr(written.writer, "write_pyramid", lambda *_: None)
  monkeypatch.setattr(written.pictures, "overlay", lambda *_: np.zeros((2, 2, 3), np.uint8))
  monkeypatch.setattr(written, "_hottest", lambda *_: None)
  found = written.Scored(slide, plan, done, "s", tmp_path, 4.0)
  row = written.write(found, "anomaly", "Anomaly", types.SimpleNamespace(top=0.25, fields=2), None, 0.3, 1.0)
  # the mean of two tiles: a quarter of five, rounded up
  assert row == {"score": pytest.approx(0.45), "tiles": 5, "tile_max": 0.5, "map_max": pytest.approx(0.9),
                 "tiles_above": 0.4, "tissue_mm2": 2.0, "threshold": None}


def test_regions_are_looked_for_in_the_finest_level_that_fits(tmp_path, monkeypatch, caplog):
  """Levels are means of 2 x 2; areas are in pixels of the slide, and mm2 where it says how large they are."""
  monkeypatch.setattr(work, "_SMALLEST", 3)
  monkeypatch.setattr(written, "_REGION_PIXELS", 20)
  done = work.Work(tmp_path / "w", "k", (10, 6), 0)
  done.map[:] = np.random.default_rng(0).random((10, 6))
  levels = done.pyramid()
  assert [level.shape for level in levels] == [(10, 6), (5, 3), (3, 2)]
  np.testing.assert_allclose(levels[1], np.array(done.map).reshape(5, 2, 3, 2).mean((1, 3)), rtol=1e-6)
  shapes, seen = [{"properties": {"measurements": {"area px^2": a}}} for a in (4e6, 2e6)], []
  monkeypatch.setattr(written.regions, "features", lambda *given: seen.extend(given) or (shapes, 3))
  found = lambda mpp: written.Scored(types.SimpleNamespace(mpp=mpp), None, done, "s", tmp_path, 4.0)
  assert written._regions(found(0.5), levels, 0.25, "Tumor", 7) == {"regions": 3, "region_mm2": 1.5}
  assert seen[0].shape == (5, 3) and seen[1:] == [0.25, 8.0, 7, "Tumor", 0.5]
  assert "the largest 2 of 3 regions are written" in caplog.text
  assert json.loads(next(tmp_path.glob("*regions.geojson")).read_text())["features"] == shapes
  assert written._regions(found(0.0), levels, 0.25, "Tumor", 7) == {"regions": 3}


@pytest.mark.parametrize("own, top", [(0.0, 0.6), (0.5, 1.0)])
def test_scores_of_tiles_are_cut_and_shown_by_the_threshold_of_images(monkeypatch, own, top):
  seen = []
  monkeypatch.setattr(whole.written, "write", lambda found, suffix, word, chosen, *rest: seen.extend(rest))
  made = object.__new__(whole.Predictor)
  vars(made).update(
      _suffix="anomaly", _class="Anomaly", threshold=7.0, _tile_threshold=0.3, calibration={"map_max": 9},
      _scorer=types.SimpleNamespace(has_map=False),
      config=types.SimpleNamespace(predict=types.SimpleNamespace(threshold=own, slide=None)))
  made._write(None)
  assert seen == [own or 0.3, 0.3, top]
  made._scorer.has_map = True
  made._write(None)
  assert seen[3:] == [7.0, 0.3, 9]
