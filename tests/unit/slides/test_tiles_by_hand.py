"""Tiles of a slide and what becomes of them: every batch is scored, each once, the last one too."""

import types

import ml_collections
import numpy as np
import pytest

from medae_jax.tasks.slides import whole


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
