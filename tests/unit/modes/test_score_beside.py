"""evaluate with a score chosen on val: the configured one beside it, and the scores without a network."""

import json

import ml_collections
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medae_jax import evaluate
from medae_jax.reporting import tables
from medae_jax.scores import residual, trivial
from tests.unit import fake_run


class Offering(fake_run.Method):
  """Offers the mean and a score that says nothing; is set to the latter."""

  def score(self, state, batch):
    out = super().score(state, batch)
    mean = residual.image_score(out["map"], "mean")
    dull = -batch["image"].std((1, 2, 3))
    out["score"] = mean if self.config.method.score.image_score == "mean" else dull
    if self.config.method.score.get("offer", False):
      out |= {"offer/image_score=mean": mean, "offer/image_score=max": dull}
    return out


@pytest.fixture(scope="module")
def results(tmp_path_factory):
  c = fake_run.config(splits=("val", "test"))
  c.method.name = "tests.unit.modes.test_score_beside:Offering"
  c.method.score.update(image_score="max", offer=False)
  c.eval.update(choose_score=("image_score",), measures=("trivial",), splits=("val", "test"))
  folder = fake_run.write(tmp_path_factory.mktemp("run"), c)
  return c, folder, evaluate.evaluate(folder)


def test_the_configured_score_stands_beside_the_chosen_one(results):
  c, folder, found = results
  assert json.loads((folder / "calibration.json").read_text())["score"] == {"image_score": "mean"}
  one, batch = found["test"], fake_run.open(c.data, c.seed).split("test").read(np.arange(11))
  assert one["before_choice"]["score"] == {"image_score": "max"} and one["score_chosen"] == "image_score=mean"
  want = roc_auc_score(batch["label"], -batch["image"].std((1, 2, 3)))
  assert one["before_choice"]["image_auroc"] == pytest.approx(want) and want < one["image_auroc"]
  low, high = one["before_choice"]["ci95"]["image_auroc"]
  assert low <= want <= high


def test_trivial_scores_take_their_direction_from_val(results):
  c, _, found = results
  data, signs = fake_run.open(c.data, c.seed), {}
  for split in ("val", "test"):
    batch = data.split(split).read(np.arange(11))
    values = trivial.scores(batch["image"], (0.0, 1.0))
    signs = signs or {k: 1 if roc_auc_score(batch["label"], v) >= 0.5 else -1 for k, v in values.items()}
    for name in trivial.NAMES:
      want = roc_auc_score(batch["label"], signs[name] * values[name])
      assert found[split]["trivial_scores"][name]["image_auroc"] == pytest.approx(want)


def test_the_table_of_a_sweep_has_both_scores(results, tmp_path):
  class Trial:
    name, cell, setting, labels = "a", (("run", 0),), 0, (("model", "x"),)

  s = ml_collections.ConfigDict(dict(config="c", arg="", metric="image_auroc", split="test", average=("run",),
                                     folds=0))
  one = results[2]["test"]
  row = tables.write(tmp_path, s, [Trial], lambda _: one, {}, {})["rows"][0]
  assert row["before_choice"]["mean"] == one["before_choice"]["image_auroc"]
  assert row["trivial"]["trivial jpeg"] == one["trivial_scores"]["jpeg"]["image_auroc"]
  text = (tmp_path / "table.md").read_text()
  assert "| as configured | std | 95 % | image_auroc (test) |" in text
  assert "Chosen on val for x: image_score=mean" in text
  assert "before_ci95_low" in (tmp_path / "table.csv").read_text()
