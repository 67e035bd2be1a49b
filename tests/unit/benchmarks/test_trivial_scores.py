"""Scores without a network: closed forms, the sign from val, and the group bootstrap."""

import ml_collections
import numpy as np
import pytest

from benchmarks import trivial_scores
from tests.contract import cases


def test_closed_forms():
  rng = np.random.default_rng(0)
  trained = rng.normal(size=(8, 6, 6, 1)).astype(np.float32)
  flat = np.full((1, 6, 6, 1), 0.5, np.float32)
  point = np.zeros((1, 6, 6, 1), np.float32)
  point[0, 3, 3] = 1
  found = trivial_scores.scores(np.concatenate([trained, flat, point]), trained)
  np.testing.assert_allclose(found["pca16"][:8], 0, atol=1e-12)  # 7 components hold them all
  assert found["pca16"][8] > 1e-3
  np.testing.assert_allclose(found["laplacian"][8:], [0, (4 + 4 * 1) / 16], atol=1e-12)
  np.testing.assert_allclose(found["mean"][8:], [0.5, 1 / 36])
  np.testing.assert_allclose(found["std"][8], 0, atol=1e-12)
  assert found["entropy"][8] == 0 and found["entropy"][:8].min() > 2  # one grey; noise of 36 pixels
  np.testing.assert_allclose(found["entropy"][9], -(35 * np.log2(35 / 36) + np.log2(1 / 36)) / 36, atol=1e-12)
  assert found["jpeg"][8] < found["jpeg"][9] < found["jpeg"][:8].min()
  want = ((trained - trained.mean(0)) ** 2).mean((1, 2, 3))
  np.testing.assert_allclose(found["distance"][:8], want, rtol=1e-6)


def test_table_and_sign(monkeypatch):
  class Source(list):
    def read(self, places):
      rows = [self[i] for i in places]
      return {k: np.stack([r[k] for r in rows]) for k in rows[0]}

    def meta(self, i):
      return {"group": i // 2}

  class Data:
    name, splits = "dark anomalies", ("val", "test")

    def train(self):
      return self.split("val")

    def split(self, name):
      rng = np.random.default_rng(len(name))
      return Source({"image": (rng.normal(size=(4, 4, 1)) - 9 * (i % 2)).astype(np.float32),
                     "label": np.int32(i % 2)} for i in range(20))

  config = ml_collections.ConfigDict({"data": {}, "seed": 0})
  monkeypatch.setattr(trivial_scores.datasets, "open_dataset", lambda *_: Data())
  found = trivial_scores.table(config)
  assert found["mean"] == (1.0, [1.0, 1.0])  # dark is anomalous: the sign comes from val
  low, high = found["laplacian"][1]
  assert low < found["laplacian"][0] < high
  Data.splits = ("test",)
  with pytest.raises(ValueError, match="no val split"):
    trivial_scores.table(config)


def test_command_line(capsys):
  config = cases.ROOT / "configs" / "dpa_cifar10.py"
  trivial_scores.main([f"{config}:smoke"])
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].startswith("| config | mean |") and len(lines) == 3
