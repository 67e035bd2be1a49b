"""The fit of residual weights by hand: which pixels count, padding, patients held out."""

import sys
import types

import ml_collections
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from data_pipelines.dataset import ArraySource
from data_pipelines.errors import UserError
from medae_jax.tasks.anomaly import residual_fit

OPTIONS = ml_collections.ConfigDict({"erosion": 0, "median": 0})


def data(n=6, seed=0):
  """Lesions are dark in channel 1; half of the image is background, whose residual is 0."""
  rng = np.random.default_rng(seed)
  image, mask = np.ones((n, 12, 12, 2), np.float32), np.zeros((n, 12, 12, 1), np.float32)
  mask[:, 2:6, 2:6] = 1
  residual = (0.25 * rng.normal(size=image.shape) - mask * [0.0, 0.4]).astype(np.float32)
  image[:, 6:], residual[:, 6:] = 0, 0
  return image, residual, mask


def fitted(patients, pad=0, **options):
  image, residual, mask = data(len(patients))
  fit = residual_fit.ResidualFit(OPTIONS, list(patients), **options)
  grow = lambda a: np.concatenate([a, np.repeat(5 * a[-1:], pad, 0)])
  n = len(patients)
  fit.update({"image": grow(image), "mask": grow(mask), "valid": np.arange(n + pad) < n,
              "position": np.minimum(np.arange(n + pad), n - 1)},
             {"recon": grow(image) - grow(residual)})
  return fit.result(), fit.summary()


def test_the_dark_side_of_channel_1_gets_the_weight_and_the_mean_weight_is_one():
  found, about = fitted("aabbcc")
  weights = np.array(found["weights_positive"] + found["weights_negative"])
  assert weights.argmax() == 3 and weights[3] > 2 * weights[:3].max()
  assert weights.mean() == pytest.approx(1.0, abs=1e-3)
  assert about["pixel_ap_plain"] < about["pixel_ap_other_patients"] <= about["pixel_ap_fitted"] + 0.01


def test_parts_are_not_saturated_and_the_map_they_are_compared_with_is(monkeypatch):
  """A level is of the weighted map: parts of 0.2 and 0.4 would both be near 0.1."""
  want, about = fitted("aabbcc")
  saturating = ml_collections.ConfigDict({**OPTIONS, "saturation": 0.1})
  monkeypatch.setattr(sys.modules[__name__], "OPTIONS", saturating)
  found, saturated = fitted("aabbcc")
  assert found == want and saturated["pixel_ap_fitted"] == about["pixel_ap_fitted"]
  seen, finished = [], residual_fit.scores.finished
  spy = lambda *args: seen.append(args[-1].saturation) or finished(*args)
  monkeypatch.setattr(residual_fit.scores, "finished", spy)
  fitted("aabbcc")
  assert seen == [0.0, 0.1]


def test_pixels_whose_score_is_zero_count_as_normal_ones():
  """They cannot change the order, but false alarms are measured against them."""
  _, residual, mask = data()
  _, about = fitted("aabbcc")
  plain = np.abs(residual).sum(-1).astype(np.float16).ravel()
  assert about["pixel_ap_plain"] == pytest.approx(average_precision_score(mask.ravel(), plain), abs=1e-6)


def test_a_lesion_that_the_erosion_removes_lowers_the_figure():
  image, residual, mask = data()
  mask[:, 8:10, 8:10] = 1            # marked in the background: never found
  fit = residual_fit.ResidualFit(OPTIONS, list("aabbcc"))
  fit.update({"image": image, "mask": mask, "valid": np.ones(6, bool), "position": np.arange(6)},
             {"recon": image - residual})
  fit.result()
  plain = np.abs(residual).sum(-1).astype(np.float16).ravel()
  assert fit.summary()["pixel_ap_plain"] == pytest.approx(
      average_precision_score(mask.ravel(), plain), abs=1e-6)


def test_padding_changes_nothing():
  assert fitted("aabbcc", pad=2) == fitted("aabbcc")


def test_held_out_patients_are_scored_with_the_weights_of_the_others():
  """One patient's lesions are dark, the other's bright: what the other one teaches is wrong."""
  image, residual, mask = data()
  residual[3:] *= -1
  fit = residual_fit.ResidualFit(OPTIONS, list("aaabbb"))
  fit.update({"image": image, "mask": mask, "valid": np.ones(6, bool), "position": np.arange(6)},
             {"recon": image - residual})
  fit.result()
  about = fit.summary()
  assert about["pixel_ap_other_patients"] < 0.7 * about["pixel_ap_plain"]


def test_the_fit_starts_from_the_best_plain_choice():
  """All modalities, brighter or darker alone, one side of one modality; no gain is enough to leave it."""
  image, residual, mask = data()
  starts = [[1, 1, 1, 1], [2, 2, 0, 0], [0, 0, 2, 2], *(4 * np.eye(4)).tolist()]
  for turned in (residual, -residual, residual[..., ::-1], -residual[..., ::-1]):
    fit = residual_fit.ResidualFit(OPTIONS, list("aabbcc"), tolerance=1e9)
    fit.update({"image": image, "mask": mask, "valid": np.ones(6, bool), "position": np.arange(6)},
               {"recon": image - turned})
    found = fit.result()
    parts = np.concatenate([np.maximum(turned, 0), np.maximum(-turned, 0)], -1).reshape(-1, 4)
    best = max(starts, key=lambda w, parts=parts: average_precision_score(mask.ravel(), parts @ np.array(w)))
    assert [*found["weights_positive"], *found["weights_negative"]] == best


def test_pixels_of_score_0_count_as_often_as_they_are(monkeypatch):
  """Of all patients in the weights, of the others alone where a patient is held out."""
  image, residual, mask = data()
  fit = residual_fit.ResidualFit(OPTIONS, list("aabbcc"))
  fit.update({"image": image, "mask": mask, "valid": np.ones(6, bool), "position": np.arange(6)},
             {"recon": image - residual})
  asked = []
  monkeypatch.setattr(fit, "_fit", lambda parts, truth, zeros: asked.append(zeros) or np.ones(parts.shape[1]))
  fit.result()
  each = np.array(fit._zeros)
  assert each.sum() > 0 and each.shape == (3, 2)
  np.testing.assert_allclose(asked, [each.sum(0), *(each.sum(0) - each[[0, 1, 2]])])


def test_a_single_patient_cannot_be_held_out():
  assert np.isnan(fitted("aaaaaa")[1]["pixel_ap_other_patients"])


def test_plain_is_the_map_of_the_configs_own_weights():
  """Of the dark side of channel 1 alone, which finds more than the mean of all."""
  image, residual, mask = data()
  options = ml_collections.ConfigDict({**OPTIONS, "weights_positive": (0.0, 0.0),
                                       "weights_negative": (0.0, 4.0)})
  found = {}
  for name, given in (("own", options), ("all", OPTIONS)):
    fit = residual_fit.ResidualFit(given, list("aabbcc"))
    fit.update({"image": image, "mask": mask, "valid": np.ones(6, bool), "position": np.arange(6)},
               {"recon": image - residual})
    fit.result()
    found[name] = fit.summary()["pixel_ap_plain"]
  dark = np.maximum(-residual[..., 1], 0).astype(np.float16).ravel()
  assert found["own"] == pytest.approx(average_precision_score(mask.ravel(), dark), abs=2e-3)
  assert found["own"] > found["all"] + 0.05


def test_a_part_of_the_pixels_gives_the_figures_of_all():
  """Lesion pixels of score 0, which are only counted, weigh as much beside a quarter of the others."""
  image, residual, mask = data()
  mask[:, 8:12, 2:12] = 1            # marked in the background
  found = []
  for pixels in (10**6, 100):
    fit = residual_fit.ResidualFit(OPTIONS, list("aabbcc"), pixels=pixels)
    fit.update({"image": image, "mask": mask, "valid": np.ones(6, bool), "position": np.arange(6)},
               {"recon": image - residual})
    fit.result()
    found.append(fit.summary()["pixel_ap_fitted"])
  assert found[0] == pytest.approx(found[1], abs=0.08)


@pytest.mark.parametrize("lesions, kind, size, said", [
    ("marked", "val", 3, ""), ("drawn", "drawn", 2, "SYNTHETIC, drawn on healthy slices"),
    ("both", "both", 5, "marked, and SYNTHETIC drawn on healthy slices: mean of both weights")])
def test_weights_are_fitted_on_the_lesions_that_are_asked_for(monkeypatch, lesions, kind, size, said):
  full = lambda n, value: {"image": np.full((n, 4, 4, 2), value), "mask": np.full((n, 4, 4, 1), value)}
  val, drawn = ArraySource(full(3, 1.0)), ArraySource(full(2, 0.0))
  healthy = ArraySource({"image": np.zeros((2, 4, 4, 2))})
  asked = []
  monkeypatch.setattr(residual_fit.drawn_lesions, "DrawnLesions",
                      lambda source, modalities: asked.append((source, modalities)) or drawn)
  dataset = types.SimpleNamespace(split={"val": val}.__getitem__, validation=lambda: healthy)
  config = ml_collections.ConfigDict({"eval": {"fit_lesions": lesions}, "method": {"score": OPTIONS},
                                      "data": {"modalities": ("flair", "t1")}})
  found = residual_fit.examples(config, dataset)
  assert len(found) == size and asked == ([] if lesions == "marked" else [(healthy, ("flair", "t1"))])
  assert found is {"val": val, "drawn": drawn}.get(kind, found)
  if lesions == "both":
    assert found.read([4, 0, 3, 1])["mask"][:, 0, 0, 0].tolist() == [0, 1, 0, 1]
  fit = residual_fit.fit_of(config, found, list("abcde")[:size])
  assert isinstance(fit, residual_fit.BothFit if lesions == "both" else residual_fit.ResidualFit)
  assert getattr(fit, "_n", 3) == 3  # the rest of both are drawn
  about = (fit._marked if lesions == "both" else fit).summary()
  assert about.get("lesions", "") == said
  if lesions != "marked":
    dataset.validation = lambda: None
    with pytest.raises(UserError, match="needs healthy slices"):
      residual_fit.examples(config, dataset)


@pytest.mark.parametrize("erosion", [0, 3])
def test_what_lies_outside_the_eroded_foreground_is_not_fitted(erosion):
  image, residual, mask = data()
  options = ml_collections.ConfigDict({**OPTIONS, "erosion": erosion})
  inside = np.asarray(residual_fit.scores.erode(residual_fit.scores.foreground(image), erosion))
  found = []
  for outside in (0, 9):
    fit = residual_fit.ResidualFit(options, list("aabbcc"))
    shown = residual * inside + outside * (1 - inside)
    fit.update({"image": image, "mask": mask, "valid": np.ones(6, bool), "position": np.arange(6)},
               {"recon": image - shown})
    found.append((fit.result(), fit.summary()))
  assert found[0] == found[1]
