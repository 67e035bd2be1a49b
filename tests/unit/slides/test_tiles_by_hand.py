"""Tiles of a slide and what becomes of them: every batch is scored, each once, the last one too."""

import os
import types

import ml_collections
import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.tasks.slides import scorer, whole, written


@pytest.mark.parametrize("tiles, done", [(1, 0), (2, 0), (5, 0), (5, 1), (6, 2), (4, 2)])
def test_every_tile_is_put_at_its_place_from_where_an_earlier_run_stopped(tiles, done):
  """The score of tile i is i; a batch of two is filled up at the end, and the filling is nobody's."""
  put, noted = {}, []
  places = np.arange(2 * tiles).reshape(tiles, 2)
  plan = types.SimpleNamespace(places=places, read=lambda slide, i: np.full((1, 1, 3), i, np.float32))
  work = types.SimpleNamespace(done=done, note=lambda: noted.append(True))

  def keep(number, first, where, cores, scores):
    assert number not in put and first == 2 * number
    put[number] = (where.tolist(), cores.tolist(), scores.tolist())
  work.put = keep
  judge = object.__new__(whole.Predictor)
  judge.config = ml_collections.ConfigDict({"predict": {"batch_size": 2}})
  judge._scorer = types.SimpleNamespace(
      example=lambda tile: tile, start=lambda batch: batch[:, 0, 0, 0],
      finish=lambda found, n: (-np.asarray(found)[:n], np.asarray(found)[:n]))
  judge._score("slide", plan, work, "title")
  assert noted and sorted(put) == list(range(done, -(-tiles // 2)))
  for number, (where, cores, scores) in put.items():
    rows = list(range(2 * number, min(tiles, 2 * number + 2)))
    assert scores == rows and cores == [-r for r in rows] and where == places[rows].tolist()


def judge_of(monkeypatch, tile=24, margin=2, pixel=0, kind="anomaly", shown="auto"):
  """A scorer whose network sees the whole tile as it is."""
  module = types.SimpleNamespace(
      of_pixels=lambda data, shape: (lambda pixels: pixels, lambda values, size: values))
  monkeypatch.setattr(scorer.datasets, "module", lambda name: module)
  config = ml_collections.ConfigDict({
      "data": {"name": "set"}, "eval": {"kind": kind},
      "predict": {"slide": {"tile": tile, "margin": margin, "pixel": pixel, "map": shown}}})
  return scorer.Scorer(config, (tile, tile, 3), None)


def test_pixels_of_the_map_divide_what_is_left_of_a_tile_without_its_margin(monkeypatch):
  """20 of 24: 6, 8, 12 and 24 divide the tile alone."""
  assert [judge_of(monkeypatch, pixel=p).pixel for p in (0, 1, 5, 10, 20)] == [5, 1, 5, 10, 20]
  assert judge_of(monkeypatch, shown="tiles").pixel == 20
  for pixel in (6, 8, 12, 24):
    with pytest.raises(UserError, match=f"slide.pixel={pixel} does not divide the 20 pixels of a tile"):
      judge_of(monkeypatch, pixel=pixel)
  with pytest.raises(UserError, match="slide.margin=12: nothing is left of a tile of 24"):
    judge_of(monkeypatch, margin=12)


@pytest.mark.parametrize("wrong", ["map", "score"])
def test_a_map_or_a_score_that_is_not_finite_is_no_result(monkeypatch, wrong):
  """Beside the core a map may hold what it likes: nobody sees it."""
  judge = judge_of(monkeypatch)
  found = {"map": np.zeros((2, 24, 24, 1), np.float32), "score": np.float32([1, 2])}
  found["map"][0, 0, 0] = np.nan
  cores, scores = judge.finish(found, 2)
  assert cores.shape == (2, 4, 4) and scores.tolist() == [1, 2]
  found[wrong][1] = np.inf
  with pytest.raises(UserError, match="the model's score is not finite"):
    judge.finish(found, 2)
  assert judge.finish(found, 1)[1].tolist() == [1]  # what fills up a batch is nobody's


def test_a_segmentations_scores_are_means_of_probabilities_over_the_core(monkeypatch):
  logit = np.full((1, 24, 24, 1), np.float32(np.log(3)))  # 3 / 4
  logit[:, :2] = logit[:, -2:] = logit[:, :, :2] = logit[:, :, -2:] = 50  # the margin
  logit[0, 2:7, 2:7] = -np.log(3)  # a quarter, in one pixel of the map
  cores, scores = judge_of(monkeypatch, kind="segmentation").finish({"logit": logit}, 1)
  want = np.full((4, 4), 0.75)
  want[0, 0] = 0.25
  np.testing.assert_allclose(cores[0], want, rtol=1e-5)
  np.testing.assert_allclose(scores, [(15 * 0.75 + 0.25) / 16], rtol=1e-5)


@pytest.mark.parametrize("given, top", [(None, 5.0), (0.25, 0.25)])
def test_heat_of_a_slide_ends_where_a_thousandth_of_its_map_is_above(tmp_path, monkeypatch, given, top):
  """One hot tile among 2001 does not darken the rest, ten warm ones count; a run's own scale goes before."""
  peaks = np.ones(2001, np.float32)
  peaks[7], peaks[10:20] = 50, 5
  shown = {}
  monkeypatch.setattr(written.writer, "write_pyramid", lambda path, levels, mpp: shown.update(
      {path.name: [getattr(v, "_top", None) for v in levels]}))
  monkeypatch.setattr(written.pictures, "overlay", lambda slide, level, top, *_: shown.update(overlay=top))
  monkeypatch.setattr(written.files, "write_png", lambda *_: None)
  work = types.SimpleNamespace(pyramid=lambda: [np.zeros((4, 4)), np.zeros((2, 2))], peaks=peaks,
                               scores=np.linspace(0, 1, 10))
  plan = types.SimpleNamespace(places=np.zeros((10, 2)), area=0)
  found = written.Scored(types.SimpleNamespace(mpp=None), plan, work, "s", tmp_path, 1.0)
  chosen = types.SimpleNamespace(top=0.25, least=0, fields=0)
  row = written.write(found, "anomaly", "Anomaly", chosen, None, 0.5, given)
  assert shown == {"s_anomaly.tif": [None, None], "s_heat.tif": [top, top], "overlay": top}
  assert row == {"score": pytest.approx(8 / 9), "tiles": 10, "tile_max": 1.0, "map_max": 50.0,
                 "tiles_above": 0.5, "threshold": None}  # the score is that of the best three of ten


def test_what_was_begun_goes_on_only_where_nothing_that_numbers_depend_on_has_changed(tmp_path):
  """Where results are written and how the slide was named on the command line is nothing of that kind."""
  slide = tmp_path / "s.tif"
  slide.write_bytes(b"12345")
  os.utime(slide, ns=(0, 10**9))
  groups = {"method": {"name": "dae"}, "model": {"width": 4}, "data": {"mean": (0.5, 0.25)},
            "predict": {"input": "a", "output": "b", "slide": {"tile": 24}}}

  def key(path=slide, step=7, threshold=0.5, tile_threshold=0.25, **changed):
    judge = object.__new__(whole.Predictor)
    judge.config = ml_collections.ConfigDict({g: {**v, **changed.get(g, {})} for g, v in groups.items()})
    judge._step, judge.threshold, judge._tile_threshold = step, threshold, tile_threshold
    return judge._key(path)
  same = key()
  assert key(predict={"input": "c", "output": "d"}) == same == key(tmp_path / "." / "s.tif")
  (tmp_path / "link").symlink_to(slide)
  assert key(tmp_path / "link") == same
  changed = [key(step=8), key(threshold=0.75), key(threshold=None), key(tile_threshold=0.5),
             key(method={"name": "dpa"}), key(model={"width": 8}), key(data={"mean": (0.25, 0.5)}),
             key(predict={"slide": {"tile": 48}})]
  os.utime(slide, ns=(0, 10**9 + 1))
  changed.append(key())
  slide.write_bytes(b"123456")
  os.utime(slide, ns=(0, 10**9))
  changed.append(key())
  assert len({same, *changed}) == 1 + len(changed)
