"""The score study on brains: what is fitted to both kinds of lesions, candidates, the paired table."""

import ml_collections
import numpy as np
import pytest

from configs import dae_nifti, sweep_brains
from data_pipelines.brains import drawn_lesions
from data_pipelines.dataset import ArraySource
from data_pipelines.errors import UserError
from medae_jax.core import config as config_lib
from medae_jax.metrics import detection
from medae_jax.tasks.anomaly import residual_fit
from medae_jax.tasks.anomaly.study import candidates, table

OPTIONS = ml_collections.ConfigDict({"erosion": 0, "median": 0})


def part(n=4, side=16, seed=0):
  """Slices with a lesion that is bright in channel 0; the network fills it in."""
  rng = np.random.default_rng(seed)
  image = rng.uniform(0.4, 0.6, (n, side, side, 3)).astype(np.float32)
  recon = image + 0.02 * rng.normal(size=image.shape).astype(np.float32)
  mask = np.zeros((n, side, side), bool)
  mask[:, 4:12, 4:12] = True
  image[mask, 0] += 0.3
  return {"image": image, "recon": recon, "mean4": recon, "mirrored2": recon, "mask": mask,
          "patient": np.repeat(["a", "b"], n // 2), "slice": np.tile(np.arange(n // 2), 2)}


@pytest.fixture(scope="module")
def fold():
  return candidates.Fold(part(), part(seed=1), part(seed=2), part(seed=3)["recon"])


def test_every_candidate_gives_maps_and_those_of_brightness_find_the_lesion(fold):
  found = {name: candidate(fold) for name, candidate in candidates.CANDIDATES.items()}
  for name, maps in found.items():
    assert maps.shape == (4, 16, 16) and np.isfinite(maps).all() and maps.min() >= 0, name
  mask = fold.test["mask"]
  for name in ("FLAIR, 5x5 median, over the scan's median", "weights, both, 4 draws", "published"):
    assert found[name][mask].mean() > 2 * found[name][~mask].mean() or "FLAIR" in name
    assert found[name][mask].mean() > found[name][~mask].mean()
  kept = [candidates.weighted(fold, (1, 1, 1, 1, 1, 1), erosion=size).sum() for size in (0, 3, 5)]
  assert kept[0] > kept[1] > kept[2] > 0
  assert found["..., minus half of the other side"].sum() < found["weights, both, 4 draws"].sum()


@pytest.mark.parametrize("name", ["FLAIR, 5x5 median, over the scan's median",
                                  "..., residual over the scan's median"])
def test_over_median_does_not_mind_the_scale_of_a_scan(fold, name):
  factor = np.where(fold.test["patient"] == "a", 3, 0.5).astype(np.float32)[:, None, None, None]
  scaled = candidates.Fold(fold.val, fold.drawn, {**fold.test, **{
      k: factor * fold.test[k] for k in ("image", "recon", "mean4", "mirrored2")}}, fold.healthy)
  before, after = (candidates.CANDIDATES[name](f) for f in (fold, scaled))
  np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_both_is_the_mean_of_what_marked_and_drawn_lesions_teach():
  marked, drawn = part(), part(seed=1)
  drawn["image"] = drawn["image"][..., [1, 0, 2]]  # there channel 1 is bright
  drawn["recon"] = drawn["recon"][..., [1, 0, 2]]
  joined = [np.concatenate([marked[k], drawn[k]]) for k in ("image", "recon", "mask", "patient")]
  joined[1] = joined[1] + np.random.default_rng(5).normal(0, 0.15, joined[1].shape).astype(np.float32)
  def fit(rows, both):
    found = (residual_fit.BothFit(OPTIONS, joined[3], 4) if both
             else residual_fit.ResidualFit(OPTIONS, joined[3][rows]))
    for some in np.array_split(np.arange(len(rows)), 3):  # the second batch has both kinds
      own = np.asarray(rows)[some]
      found.update({"image": joined[0][own], "mask": joined[2][own][..., None],
                    "valid": np.ones(len(own), bool), "position": some}, {"recon": joined[1][own]})
    return np.concatenate(list(found.result().values())), found.summary()
  (first, _), (second, _), (mean, about) = fit(range(4), False), fit(range(4, 8), False), fit(range(8), True)
  np.testing.assert_allclose(mean, (first + second) / 2, atol=1e-3)
  assert mean[0] > 1 and mean[1] > 1 and about["pixel_ap_fitted"] > 0.5


def test_the_joined_source_keeps_the_order_asked_for():
  source = lambda value: ArraySource({"image": np.full((3, 8, 8, 1), value, np.float32),
                                      "mask": np.zeros((3, 8, 8, 1), np.float32)})
  marked, drawn = source(1), drawn_lesions.DrawnLesions(source(2), ("flair",))
  joined = residual_fit.Joined(marked, drawn)
  assert len(joined) == 6 and joined.meta(4)["id"] == "1"
  rows = joined.read(np.array([4, 0, 5, 2]))["image"].max((1, 2, 3))
  assert (rows > 1.5).tolist() == [True, False, True, False]
  bare = residual_fit.Joined(ArraySource({"image": np.ones((3, 8, 8, 1), np.float32)}), drawn)
  with pytest.raises(UserError, match="both.*masks"):
    bare.read(np.array([0, 4]))


def test_a_score_that_is_better_in_every_patient_is_so_in_the_paired_interval(tmp_path, monkeypatch):
  def scored(folder):
    rng = np.random.default_rng(int(folder.name))
    mask = rng.random((4, 500)) < 0.3
    group = {}
    for name in candidates.CANDIDATES:
      score = mask * (0.7 if name == "FLAIR" else 0.3) + rng.random(mask.shape)
      group[name] = np.stack([[np.bincount(detection.code_of(s[m == y]), minlength=detection.CODES)
                               for y in (False, True)] for s, m in zip(score, mask)])
    return group
  monkeypatch.setattr(table, "_scored", scored)
  runs = [(s, tmp_path / str(f)) for s in (0, 1) for f in range(2)]
  rows = table.write(tmp_path, runs, "command", 20)
  best = next(r for r in rows if r["score"] == "FLAIR")
  assert best["minus_published"][0] > 0 and len(best["folds"]) == 2
  assert best["minus_baseline"] == [0, 0]  # the best threshold of these folds, not one chosen before
  assert best["low"] < best["ap"] < best["high"]
  same = next(r for r in rows if r["score"] == "published")
  assert same["minus_published"] == [0, 0]
  assert "2 seed(s)" in (tmp_path / "scores.md").read_text()


def test_the_sweep_has_every_fold_of_every_seed():
  plan = sweep_brains.get_config("small,root=F,runs=2").sweep
  assert plan.grid["fold"] == (0, 1, 2, 3, 4) and plan.grid["run"] == (0, 1) and plan.study == "brain_scores"
  noise = sweep_brains.get_config("smoke,study=noise").sweep
  assert noise.grid["noise_res"] == (4, 8, 16, 32) and noise.study == "" and noise.grid["fold"] == (0,)
  training = sweep_brains.get_config("small,root=F,study=training").sweep
  first, by_name = training.parts[0], {p["name"]: p for p in training.parts}
  assert first["name"] == "default" and training.rounds  # with the intervals of evaluations
  assert first["settings"] == ({"eval.panel_images": 0, "train.steps": 600},)
  for name, want in {"noise_4_nodes": ("data.noise_res", 4), "noise_0.4": ("data.noise_std", 0.4),
                     "loss_ssim_l1": ("method.loss", "ssim+l1")}.items():
    assert config_lib.flat(dae_nifti.get_config(by_name[name]["arg"]))[want[0]] == want[1]
  assert {f for p in training.parts for f in p["settings"][0]} > {"data.flip", "data.gain", "model.wf"}
  some = sweep_brains.get_config("small,root=F,study=training,changes=half_as_wide+loss_l1").sweep.parts
  assert [p["name"] for p in some] == ["half_as_wide", "loss_l1"]
  assert some[0]["settings"][0]["model.wf"] == 2 and some[0]["grid"] == training.parts[0]["grid"]
  brief = sweep_brains.get_config("small,root=F,study=training,on=1+3,steps=300,runs=3").sweep.parts
  assert brief[0]["grid"] == {"run": (0, 1, 2), "fold": (1, 3)}
  steps = {p["name"]: p["settings"][0]["train.steps"] for p in brief}
  assert (steps.pop("twice_as_long"), steps.pop("half_as_long"), {*steps.values()}) == (600, 150, {300})
  for bad in ("on=5", "study=x", "study=training,changes=loss_l3", "changes=loss_l1"):
    with pytest.raises(UserError, match=bad.rpartition(",")[2]):
      sweep_brains.get_config(bad)


@pytest.mark.parametrize("arg, unit, guided, draws, mirror, erosion, image", [
    ("small", "balanced", (5, 1e-3, 0, 0.4), 2, 2, 3, "max"),
    ("published", "percentile", (0, 1e-3, 0, 0.0), 0, 0, 5, "mean"),
    ("published,unit=median", "median", (0, 1e-3, 0, 0.0), 0, 0, 5, "mean")])
def test_the_default_is_the_winner_and_the_published_recipe_an_argument_away(
    arg, unit, guided, draws, mirror, erosion, image):
  config = dae_nifti.get_config(arg)
  score = config.method.score
  assert (config.data.unit, score.gaussian, score.test_noise_draws) == (unit, 0.0, draws)
  assert (score.guided, score.guided_eps, score.guide_channel, score.saturation) == guided
  assert (score.test_noise_mirror, score.erosion, score.image_score) == (mirror, erosion, image)
