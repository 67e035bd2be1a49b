"""The score that val chooses among those that a method offers."""

import ml_collections
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medae_jax.core.errors import UserError
from medae_jax.tasks.anomaly.score_choice import ScoreChoice


def choice(free, **score):
  return ScoreChoice(ml_collections.ConfigDict({"eval": {"choose_score": free}, "method": {"score": score}}))


def batches(label, offers, size=4):
  for i in range(0, len(label), size):
    part = slice(i, i + size)
    n = len(label[part])
    pad = lambda x: np.concatenate([x, np.full(size - n, 7, x.dtype)])
    yield ({"label": pad(label[part]), "valid": np.arange(size) < n},
           {"score": pad(label[part]), **{f"offer/{k}": pad(v[part]) for k, v in offers.items()}})


@pytest.fixture
def data():
  rng = np.random.default_rng(0)
  label = np.tile([0, 1, 1], 6)
  offers = {f"image={kind};taps={taps}": rng.standard_normal(18) + gain * label
            for kind, taps, gain in (("a", "x", 0.2), ("a", "y", 1.5), ("b", "x", 5.0), ("b", "y", 0.0))}
  return label, offers


@pytest.mark.parametrize(("free", "want"), [(("taps",), {"image": "a", "taps": "y"}),
                                            (("image", "taps"), {"image": "b", "taps": "x"}),
                                            (("image",), {"image": "b", "taps": "x"})])
def test_the_best_auroc_wins_among_what_may_change(data, free, want):
  label, offers = data
  found = choice(free, image="a", taps="x")
  for batch, out in batches(label, offers):
    found.update(batch, out)
  assert found.result() == want
  said = found.summary()
  assert said["abnormal"] == 12 and said["normal"] == 6
  assert len(said["image_auroc"]) == (4 if len(free) > 1 else 2)
  for name, value in said["image_auroc"].items():
    assert value == pytest.approx(roc_auc_score(label, offers[name]))


def test_masks_are_labels_too_and_equal_scores_go_by_name():
  found = choice(("taps",), image="a", taps="x")
  mask = np.zeros((4, 2, 2, 1))
  mask[1:3, 0, 0] = 1
  score = np.arange(4.0)
  found.update({"mask": mask, "valid": np.ones(4, bool)}, {"offer/taps=z": score, "offer/taps=x": score})
  assert found.result() == {"taps": "x"}


def test_normal_images_alone_choose_nothing(data):
  found = choice(("taps",), image="a", taps="x")
  for batch, out in batches(np.zeros(18, int), data[1]):
    found.update(batch, out)
  assert found.result() == {} and found.summary() == {"image_auroc": {}, "abnormal": 0, "normal": 18}


def test_what_cannot_be_chosen_is_refused(data):
  batch, out = next(batches(*data))
  with pytest.raises(UserError, match="offers no scores"):
    choice(("taps",), image="c").update(batch, out)
  with pytest.raises(UserError, match="labels or masks"):
    choice(("taps",), image="a").update({"valid": batch["valid"]}, out)
