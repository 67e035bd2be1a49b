"""The score study by hand: its table against scikit-learn, what it keeps and reads, what candidates are."""

import re
import types

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from data_pipelines.dataset import ArraySource
from medae_jax.metrics import bootstrap, detection
from medae_jax.tasks.anomaly.study import candidates, table

RESAMPLES = 40


# ------------------------------------------------------------------------------------------- the table
def drawn_run(seed, names, patients=3, pixels=40):
  """({name: score [patients, pixels]}, mask) of a run."""
  rng = np.random.default_rng(seed)
  mask = rng.random((patients, pixels)) < 0.3
  return {n: np.float16(mask * 0.3 * i + rng.random(mask.shape)) for i, n in enumerate(names)}, mask


def counted(score, mask):
  return np.stack([[np.bincount(detection.code_of(s[m == y]), minlength=detection.CODES)
                    for y in (False, True)] for s, m in zip(score, mask)])


def test_the_table_is_that_of_scikit_learn_over_the_same_patients(tmp_path, monkeypatch):
  """Pooled pixels of a fold, mean over folds, then over seeds; one draw a fold for all seeds and scores."""
  names = ("FLAIR", "published", "other")
  monkeypatch.setattr(table, "CANDIDATES", dict.fromkeys(names))
  monkeypatch.setattr(table, "THRESHOLDS", ("FLAIR",))
  runs = {(s, f): drawn_run(10 * s + f, names) for s in (3, 5) for f in (0, 1)}
  monkeypatch.setattr(table, "_scored", lambda folder: {
      n: counted(score, runs[folder][1]) for n, score in runs[folder][0].items()})
  rows = table.write(tmp_path, [(s, (s, f)) for s, f in runs], "command", RESAMPLES)
  assert f"\n{len(runs)} trained networks, 2 seed(s); " in (tmp_path / "scores.md").read_text()
  drawn = {}
  for row in rows:
    points, draws = {}, []
    for (seed, fold), (scores, mask) in runs.items():
      score = scores[row["score"]]
      points.setdefault(seed, []).append(average_precision_score(mask.ravel(), score.ravel()))
      draws.append([average_precision_score(mask.ravel(), score.ravel(),
                                            sample_weight=np.repeat(w, mask.shape[1]).astype(float))
                    for w in bootstrap.resample_weights(3, RESAMPLES, fold)])
    means = [np.mean(p) for p in points.values()]
    assert row["ap"] == pytest.approx(np.mean(means)) and row["sd"] == pytest.approx(np.std(means, ddof=1))
    assert row["folds"] == pytest.approx(np.mean(list(points.values()), 0), abs=5e-4)
    drawn[row["score"]] = np.mean(draws, 0)
    assert [row["low"], row["high"]] == pytest.approx(np.quantile(drawn[row["score"]], [0.025, 0.975]))
  for row in rows:
    for word, other in (("published", "published"), ("baseline", "FLAIR")):
      assert row[f"minus_{word}"] == pytest.approx(
          np.quantile(drawn[row["score"]] - drawn[other], [0.025, 0.975])), (row["score"], word)


def test_the_baseline_is_chosen_among_thresholds_alone():
  assert set(table.THRESHOLDS) == {n for n, f in candidates.CANDIDATES.items() if n.startswith("FLAIR")
                                   and not np.any(["recon" in f.__code__.co_names, "weighted" in
                                                   f.__code__.co_names])}


def test_pixels_are_counted_by_patient_and_truth():
  maps = np.array([[[0.5, 0.25]], [[0.5, -1.0]], [[0.25, 0.25]]])
  part = {"mask": np.array([[[True, False]], [[True, False]], [[False, False]]]),
          "patient": np.array(["b", "a", "b"])}
  found = table._counts(maps, part)
  half, quarter, none = detection.code_of(np.array([0.5, 0.25, 0]))
  assert {(p, y, c): found[p, y, c] for p, y, c in np.argwhere(found).tolist()} == {
      (0, 0, none): 1, (0, 1, half): 1, (1, 0, quarter): 3, (1, 1, half): 1}


def test_what_is_kept_belongs_to_its_name_and_is_made_anew_for_other_candidates(tmp_path, monkeypatch):
  (tmp_path / "evaluation").mkdir()
  part = {"mask": np.array([[[True, False]]]), "patient": np.array(["a"])}
  made = []
  monkeypatch.setattr(table, "collect",
                      lambda folder: made.append(folder) or types.SimpleNamespace(test=part))
  two = {n: (lambda fold, v=v: np.full((1, 1, 2), v)) for n, v in (("one", 0.25), ("two", 0.5))}
  monkeypatch.setattr(table, "CANDIDATES", two)
  first = table._scored(tmp_path)
  monkeypatch.setattr(table, "CANDIDATES", dict(reversed(two.items())))  # the list in another order
  second = table._scored(tmp_path)
  assert len(made) == 1 and list(second) == ["two", "one"]
  for name, value in (("one", 0.25), ("two", 0.5)):
    np.testing.assert_array_equal(second[name], first[name])
    assert second[name][0, 1, detection.code_of(np.array(value))] == 1
  monkeypatch.setattr(table, "CANDIDATES", {**two, "three": two["one"]})
  assert set(table._scored(tmp_path)) == {"one", "two", "three"} and len(made) == 2


def test_a_fold_is_read_from_its_own_splits_with_its_own_draws(tmp_path, monkeypatch):
  """Every part is told by its value; the stub's reconstruction says with which options it was asked."""
  def source(value, n=3):
    image = np.full((n, 4, 4, 1), value, np.float32)
    return ArraySource({"image": image, "mask": (image > 0).astype(np.float32)},
                       [{"patient": f"p{value}", "slice": 2 * i} for i in range(n)])
  def run_of(options):
    draws = options.get("method.score.test_noise_draws", 0)
    add = draws + 100 * options.get("method.score.test_noise_mirror", 0)
    return types.SimpleNamespace(
        override=run_of, score_fn=lambda batch: {"recon": batch["image"] + add},
        config=types.SimpleNamespace(data=types.SimpleNamespace(modalities=("flair",)), seed=0))
  def load(folder, calibrated):
    assert calibrated is False  # weights that were fitted on val are no part of what is compared
    return run_of({})
  parts = {"val": source(1), "test": source(2)}
  monkeypatch.setattr(table.trained, "load", load)
  monkeypatch.setattr(table.datasets, "open_dataset", lambda data, seed: types.SimpleNamespace(
      validation=lambda: source(3), split=parts.__getitem__, train=lambda: source(4)))
  monkeypatch.setattr(table.drawn_lesions, "DrawnLesions", lambda healthy, modalities: healthy)
  fold = table.collect(tmp_path)
  for part, value in (("val", 1), ("test", 2), ("drawn", 3)):
    found = getattr(fold, part)
    assert {k: v.shape for k, v in found.items() if v.ndim == 4} == dict.fromkeys(
        ("image", "recon", "mean4", "mirrored2"), (3, 4, 4, 1))
    assert [found[k].flat[0] - value for k in ("image", "recon", "mean4", "mirrored2")] == [0, 0, 4, 202]
    assert found["patient"].tolist() == [f"p{value}"] * 3 and found["slice"].tolist() == [0, 2, 4]
  assert fold.healthy.shape == (3, 4, 4, 1) and fold.healthy.flat[0] == 4


# ------------------------------------------------------------------------------------------ candidates
def part(lesions, side=16, seed=0):
  """A slice for each (patient, slice, channel, height) of `lesions`, the network fills the lesion in."""
  rng = np.random.default_rng(seed)
  image = rng.uniform(0.4, 0.6, (len(lesions), side, side, 3)).astype(np.float32)
  recon = image + 0.02 * rng.normal(size=image.shape).astype(np.float32)
  mask = np.zeros((len(lesions), side, side), bool)
  mask[:, 3:10, 2:8] = True
  for i, (_, _, channel, height) in enumerate(lesions):
    image[i, mask[i], channel] += height
  mean4 = recon + np.float32(0.01)
  return {"image": image, "recon": recon, "mean4": mean4, "mirrored2": mean4[:, ::-1], "mask": mask,
          "patient": np.array([p for p, *_ in lesions]), "slice": np.array([z for _, z, *_ in lesions])}


@pytest.fixture(scope="module")
def fold():
  """Marked lesions are bright in channel 0 of patient a and 1 of patient b, drawn ones in channel 2."""
  val = part([("a", 0, 0, 0.3), ("a", 1, 0, 0.3), ("b", 0, 1, 0.3), ("b", 1, 1, 0.3)])
  drawn = part([("a", 0, 2, 0.3), ("b", 0, 2, 0.3)], seed=1)
  test = part([("c", z, 0, 0.1 * z) for z in range(4)] + [("d", 0, 0, 0.3), ("d", 1, 1, -0.2)], seed=2)
  return candidates.Fold(val, drawn, test, part([("e", z, 0, 0.0) for z in range(20)], seed=3)["recon"])


def test_a_map_is_mixed_with_those_of_its_neighbours_in_its_own_scan(fold, monkeypatch):
  """1-2-1 in the order of the slices, whatever the order of the rows; the ends count once more."""
  drawn = np.random.default_rng(0).uniform(size=fold.test["image"].shape[:3])
  monkeypatch.setattr(candidates, "both", lambda _, how: {"mean4": drawn.copy()}[how])
  patient, number = np.array(fold.test["patient"]), np.array(fold.test["slice"])
  found = candidates._neighbours(fold)
  for name in np.unique(patient):
    rows = sorted(np.flatnonzero(patient == name), key=lambda r: number[r])
    ends = [rows[0], *rows, rows[-1]]
    for before, row, after in zip(ends, rows, ends[2:]):
      np.testing.assert_allclose(found[row], 0.25 * drawn[before] + 0.5 * drawn[row] + 0.25 * drawn[after])


def test_weights_are_fitted_to_the_lesions_and_patients_that_the_name_says(fold, monkeypatch):
  best = lambda *args: int(np.argmax(fold.weights(*args)[:3]))
  assert best("drawn", "recon") == 2
  marked = fold.weights("marked", "recon")
  assert marked[2] < 0.5 * min(marked[0], marked[1])  # of both patients
  one = fold.weights("marked", "recon", 1)
  assert min(one[0], one[1]) < 0.3 * max(one[0], one[1])  # of one of them
  asked = []
  said = lambda lesions, recon, patients=0, erosion=0: asked.append((lesions, patients)) or np.ones(6)
  monkeypatch.setattr(candidates.Fold, "weights", lambda self, *args: said(*args))
  monkeypatch.setattr(candidates, "weighted", lambda *args: None)
  for name in (n for n in candidates.CANDIDATES if n.startswith("weights, ")):
    candidates.CANDIDATES[name](fold)
    number = int((re.search(r"(\d) marked patient", name) or "00")[1])
    kinds = {"both": {("marked", number), ("drawn", 0)}, "drawn": {("drawn", 0)}}
    assert set(asked) == kinds.get(name.split(", ")[1], {("marked", number)}), name
    asked.clear()
  monkeypatch.undo()
  test = candidates.weighted(fold, (fold.weights("marked", "recon") + fold.weights("drawn", "recon")) / 2)
  np.testing.assert_allclose(candidates.both(fold), test, rtol=1e-6)


def test_the_first_weights_are_of_what_is_brighter_than_the_reconstruction(fold):
  brighter = candidates.CANDIDATES["FLAIR brighter alone"](fold)
  where = fold.test["mask"]
  lesion = lambda maps, i: maps[i][where[i]].mean()
  assert lesion(brighter, 4) > 0.1 and lesion(brighter, 5) < 0.05
  dark = candidates.weighted(fold, (0, 0, 0, 0, 3, 0))
  assert lesion(dark, 5) > 0.1 and lesion(dark, 4) < 0.05


def test_the_order_of_slices_does_not_matter_and_draws_are_those_of_the_name(fold):
  order = np.random.default_rng(0).permutation(len(fold.test["image"]))
  shuffled = candidates.Fold(fold.val, fold.drawn, {k: v[order] for k, v in fold.test.items()}, fold.healthy)
  for name in ("..., 1-2-1 over slices", "FLAIR, 5x5 median, equalised in the scan"):
    candidate = candidates.CANDIDATES[name]
    np.testing.assert_allclose(candidate(shuffled), candidate(fold)[order], rtol=1e-4, atol=1e-5,
                               err_msg=name)
  published = [candidates.CANDIDATES[n](fold) for n in ("published", "published, 4 draws")]
  np.testing.assert_allclose(published[1], candidates.weighted(fold, (), "mean4"))
  assert np.abs(published[0] - published[1]).max() > 1e-3
  smooth, plain = (candidates.CANDIDATES[n](fold) for n in ("..., Gaussian 1.5 px", "weights, both, 4 draws"))
  np.testing.assert_allclose(smooth.sum((1, 2)), plain.sum((1, 2)), rtol=0.02)  # within its slice


def test_ranks_end_at_one_in_the_brain_of_each_scan_whatever_lies_outside(fold):
  cut = {k: v.copy() for k, v in fold.test.items()}
  cut["image"][:, :, 10:] = 0  # background
  found = candidates.CANDIDATES["FLAIR, 5x5 median, equalised in the scan"](
      candidates.Fold(fold.val, fold.drawn, cut, fold.healthy))
  assert not found[:, :, 10:].any()
  for name in "cd":
    ranks = found[cut["patient"] == name][:, :, :10]
    assert 0.95 < ranks.max() < 1 and ranks.mean() == pytest.approx(0.5, abs=0.06)
  over = candidates._medians(cut)[..., 0]
  inside = [np.median(cut["image"][cut["patient"] == n][:, :, :10, 0]) for n in "cd"]
  np.testing.assert_allclose(over[[0, 4], 0, 0], inside, rtol=1e-5)


def test_what_healthy_slices_vary_in_is_no_anomaly(fold):
  """16 directions that healthy slices have much of are left out of the residual, another one stays."""
  rng = np.random.default_rng(0)
  size, bases = (8, 8, 3), rng.normal(size=(17, 8 * 8 * 3))
  mixed = 2 + rng.normal(size=(60, 16)) @ bases[:16] + 1e-3 * rng.normal(size=(60, 8 * 8 * 3))
  inside, outside = 2 + bases[:3].sum(0), 2 + bases[16]
  test = {**fold.test, "image": np.stack([inside, outside]).reshape(2, *size).astype(np.float32)}
  found = candidates._components(candidates.Fold(fold.val, fold.drawn, test, mixed.reshape(60, *size)))
  assert found[0].max() < 0.01 and found[1].max() > 0.2


def test_the_other_side_is_that_of_the_body_not_front_and_back(monkeypatch):
  """Slices are [left-right, front-back]: spots at both temples weaken each other, brow and nape do not."""
  maps = np.zeros((2, 32, 32), np.float32)
  maps[0, [4, 27], 8] = 100
  maps[1, 8, [4, 27]] = 100
  monkeypatch.setattr(candidates, "both", lambda fold, recon: maps.copy())
  found = candidates.CANDIDATES["..., minus half of the other side"](None)
  assert 90 < found[0].max() < 99.5 and found[1].max() > 99.99 and found.min() >= 0


def test_names_of_candidates_say_what_they_are(monkeypatch):
  """Draws, erosion and marked patients in the name are those of the call."""
  fold = types.SimpleNamespace(over_medians="over medians")
  monkeypatch.setattr(candidates, "_smoothed", lambda f, noise="mean4", erosion=None: (f, noise, erosion))
  monkeypatch.setattr(candidates, "both", lambda f, noise="", patients=None: (f, noise, patients))
  smooth, fitted = 0, 0
  for name, make in candidates.CANDIDATES.items():
    part = fold.over_medians if "over the scan's median" in name else fold
    if "Gaussian" in name and make.__name__ == "<lambda>":
      number = re.search(r"erosion (\d)", name)
      assert make(fold) == (part, "mirrored2" if "two draws, front-back" in name else "mean4",
                            int(number[1]) if number else 0 if "no erosion" in name else None), name
      smooth += 1
    elif "both" in name and make.__name__ == "<lambda>":
      number = re.search(r"(\d) marked", name)
      assert make(fold) == (part, "mean4" if "4 draws" in name else "",
                            int(number[1]) if number else None), name
      fitted += 1
  assert (smooth, fitted) == (5, 3)


@pytest.mark.parametrize("lesions, part", [("marked", "val"), ("drawn", "drawn")])
@pytest.mark.parametrize("recon", ["recon", "mean4", "mirrored2"])
def test_weights_are_fitted_to_the_residual_that_they_are_for(fold, monkeypatch, lesions, part, recon):
  seen = []
  monkeypatch.setattr(candidates.residual_fit, "ResidualFit", lambda options, patients, pixels: (
      types.SimpleNamespace(update=lambda *args: seen.append((patients, *args)),
                            result=lambda: {"weights_positive": [1], "weights_negative": [2]})))
  candidates.Fold(fold.val, fold.drawn, fold.test, fold.healthy).weights(lesions, recon, 1)
  (patients, batch, outputs), arrays = seen[0], getattr(fold, part)
  first = arrays["patient"] == "a"
  assert set(patients) == {"a"} and batch["valid"].all() and len(batch["position"]) == first.sum()
  np.testing.assert_array_equal(outputs["recon"], arrays[recon][first])
  np.testing.assert_array_equal(batch["image"], arrays["image"][first])
  np.testing.assert_array_equal(batch["mask"][..., 0], arrays["mask"][first])
