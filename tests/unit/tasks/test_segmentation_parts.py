"""Pieces of segmentation and restoration by hand: what ranks annotations, thresholds, tiles, tints."""

import types

import ml_collections
import numpy as np
from PIL import Image
import pytest

from medae_jax.tasks.restoration import evaluator as restoration, predictor as restorer
from medae_jax.tasks.segmentation import annotation_quality, measures, predictor
from tests.unit.tasks.test_segmentation_numbers import MASKS, halves, judged


def quality(n):
  metas = [{"id": str(i)} for i in range(n)]
  return annotation_quality.Quality(types.SimpleNamespace(source=range(n), metas=metas))


def test_weights_inside_and_outside_of_a_label_and_who_comes_first():
  of = quality(3)
  label = np.zeros((8, 8), bool)
  label[:, :5] = True             # at the side of the weights, 4: two columns, and a half, which counts
  weight = np.arange(4.0)[None, :, None].repeat(4, 0)
  for i, agree in ((0, 0.75), (2, 0.25)):
    of.add(i, {"mask": label, "truth": label}, label, {"seen": 2, "weight": weight, "agree": agree})
  of.add(1, {"mask": label, "truth": ~label}, label, {"seen": 0})
  assert (of.inside[0], of.outside[0], of.weight[0]) == (1.0, 3.0, 1.5)
  assert of.order().tolist() == [2, 0, 1] and of.choose(1).tolist() == [2, 0]  # never seen: last, not shown
  assert [r["id"] for r in of.rows()] == ["2", "0", "1"]


def test_a_measure_that_rises_with_the_experts_dice_has_a_positive_correlation():
  of = quality(4)
  of.seen[:], of.to_expert[:] = 1, [0.1, 0.4, 0.6, 0.9]
  of.agree[:], of.weight[:], of.to_found[:] = [0.2, 0.3, 0.5, 0.8], [4, 3, 2, 1], 0.5
  found = of.result()
  assert (found["spearman_agreement"], found["spearman_mean_weight"]) == (1.0, -1.0)
  assert found["spearman_dice_label_prediction"] is None and found["mean_dice_label_expert"] == 0.5
  assert found["ranked_by"] == "agreement" and of.order().tolist() == [0, 1, 2, 3]  # seen once is seen
  of.agree = of.agree[::-1]
  assert of.order().tolist() == [3, 2, 1, 0]


def test_a_threshold_of_ones_own_goes_before_that_of_val():
  config = lambda own: ml_collections.ConfigDict({"predict": {"threshold": own}, "data": {}})
  made = lambda own, known: predictor.Predictor(config(own), known, None).threshold
  assert (made(0.7, {"threshold": 0.4}), made(0.0, {"threshold": 0.4}), made(0.0, None)) == (0.7, 0.4, 0.5)


def test_probabilities_are_rounded_and_a_mask_begins_above_the_threshold(tmp_path):
  """100.7 of 255 is written as 101, and 127.2 as 127: nothing is cut off."""
  share = np.array([[100.7, 127.2], [128.4, 254.6]]) / 255
  logit = np.log(share / (1 - share)).astype(np.float32)[None, ..., None]
  Image.fromarray(np.full((2, 2, 3), 90, np.uint8)).save(tmp_path / "a.png")
  config = ml_collections.ConfigDict({"predict": {"threshold": 0.5}, "data": {"image_size": 2}})
  one = predictor.Predictor(config, None, lambda batch: {"logit": logit})
  item, = one.find_inputs(tmp_path)
  (tmp_path / "out").mkdir()
  row = one.predict_one(item, tmp_path / "out")
  read = lambda name: np.asarray(Image.open(tmp_path / "out" / f"a_{name}.png"))
  np.testing.assert_array_equal(read("prob"), [[101, 127], [128, 255]])
  np.testing.assert_array_equal(read("mask"), [[0, 0], [255, 255]])
  assert row["lesion_pixels"] == 2


def test_the_worst_image_is_shown_first_and_noisy_masks_are_named():
  judge = judged(halves([0.9, 0.02, 0.02]), MASKS)
  assert judge.choose().tolist() == [1, 0, 2]
  judge.expert[0] = False
  assert judge.result()["against"] == "the noisy masks themselves"


def test_a_false_mark_on_an_image_without_lesion_agrees_nowhere():
  of = measures.Measures(("surface",), 2, 1.0)
  for i, logit in enumerate((1.0, -1.0)):
    of.add(i, np.full((4, 4), logit), np.zeros((4, 4), bool))
  assert of.surface_dice[0] == 0 and np.isnan(of.surface_dice[1]) and np.isnan(of.hd95).all()


class _Natives(list):
  native = list.__getitem__


def test_what_was_learnt_of_an_annotation_is_drawn_beside_it():
  """Two annotations: one learnt of, with its expert mask, and one never seen and known to nobody."""
  mask = np.zeros((8, 8), bool)
  mask[2:6, 2:6] = True
  native = [{"image": np.full((8, 8, 3), 100, np.uint8), "mask": mask, "truth": t} for t in (mask, None)]
  of = annotation_quality.Quality(types.SimpleNamespace(
      source=_Natives(native), metas=[{"id": "p"}, {"id": "q"}], dataset=types.SimpleNamespace(name="skin")))
  weight = np.zeros((8, 8, 1), np.float32)
  weight[:, 4:] = 4.0
  outputs = [{"seen": n, "agree": 0.25, "weight": weight, "logit": np.full((8, 8, 1), -1.0)} for n in (3, 0)]
  for i in (0, 1):
    of.add(i, native[i], mask, outputs[i])
  first, second = of.gallery(list(enumerate(outputs)))
  assert (first["title"], first["facts"]) == ("1. p", ["agreement 0.25", "mean weight 2.00",
                                                       "Dice to expert 1.00"])
  assert (second["title"], second["facts"]) == ("2. q", ["no weight learnt"])
  image, masks, learnt, over = (c["picture"].astype(int) for c in first["cells"])
  assert (image == 100).all() and (second["cells"][2]["picture"] == 255).all()
  has = lambda picture, colour: (picture == colour).all(-1).any()
  assert has(masks, annotation_quality.LABEL) and not has(masks, annotation_quality.FOUND)  # nothing found
  assert not has(second["cells"][1]["picture"], annotation_quality.EXPERT)
  assert learnt[:, 150:].mean() > 150 > 20 > learnt[:, :50].mean()  # a low weight is dark
  assert has(over, annotation_quality.LABEL) and over[100, 20].max() < 100
  (panel,) = of.panels(list(enumerate(outputs)), "").values()
  assert panel.shape[0] > 2 * 200 and panel.shape[1] > 4 * 200


# ------------------------------------------------------------------------------------ restoration
@pytest.mark.parametrize("length", [512, 513, 900, 961, 1000, 5000])
def test_tiles_reach_both_ends_and_share_at_least_the_overlap(length):
  starts = restorer._starts(length, 512, 64)
  assert starts[0] == 0 and starts[-1] + 512 == length
  assert all(b - a <= 512 - 64 for a, b in zip(starts, starts[1:]))


def test_colour_under_a_mark_comes_from_around_it(monkeypatch):
  """The network knows the luma alone, and gives it back: nothing changes."""
  image = np.ones((1, 8, 8, 3), np.float32) * np.array([0.6, 0.3, 0.2], np.float32)
  marks = np.zeros((1, 8, 8, 1))
  marks[0, 3:5, 3:5] = 1
  made = object.__new__(restorer.Predictor)
  made.config = ml_collections.ConfigDict({"data": {"channels": 1}, "method": {"score": {
      "threshold": 0.5, "dilate": 0, "fill": "network"}}})
  monkeypatch.setattr(restorer, "find_marks", lambda *_: marks > 0)
  made._tiled = lambda fed: (fed, marks, 1)
  restored, found, _ = made._restore(image)
  np.testing.assert_allclose(restored, image, atol=1e-5)
  assert found.sum() == 4


def test_frames_made_worse_are_shown_worst_first():
  judge = object.__new__(restoration.Evaluator)
  psnr = lambda values: [{"psnr": v} for v in values]
  vars(judge).update(marked=np.array([True] * 4 + [False]), _fill="network", config=types.SimpleNamespace(
      eval=types.SimpleNamespace(panels=3)), numbers={"fill_network": psnr([30, 20, 20.5, 40, 1]),
                                                      "nothing": psnr([31, 25, 20, 30, 9])})
  assert judge.choose().tolist() == [3, 0, 1, 1, 0]  # best to worst; then by what they have lost


def test_the_size_of_a_frame_is_that_of_its_table_and_else_that_of_its_array():
  image = np.zeros((5, 7, 1))
  for meta, size in (({}, (5, 7)), ({"height": 3}, (3, 7)), ({"width": 4.0}, (5, 4)),
                     ({"height": 3, "width": 4}, (3, 4))):
    assert restoration.native_size(meta, image) == size


def test_a_threshold_is_fitted_on_the_frame_and_not_on_what_fills_its_array():
  """A frame of 2 x 3 in an array of 4 x 4, evidence 0.25 on its two marked pixels, 0.75 on the filling."""
  config = ml_collections.ConfigDict({"method": {"score": {"dilate": 0}}, "eval": {"threshold_beta": 1}})
  source = types.SimpleNamespace(meta=lambda i: {"height": 2, "width": 3})
  fit = restoration.Fitter(config, types.SimpleNamespace(split=lambda name: source))
  evidence, mask = np.full((2, 4, 4, 1), 0.75, np.float32), np.zeros((2, 4, 4, 1), np.float32)
  evidence[:, :2, :3], evidence[:, 0, 1:3], mask[:, 0, 1:] = 0.125, 0.25, 1
  batch = {"image": evidence, "mask": mask, "valid": np.array([True, False]), "position": np.array([0, 1])}
  fit.update(batch, {"map": evidence})
  bins = {row: {k / 1024: int(n) for k, n in enumerate(fit._counts[row]) if n} for row in (0, 1)}
  assert bins == {0: {0.25: 2}, 1: {0.125: 4}}
  assert fit.result() == {"threshold": 129 / 1024}  # the lowest that is above all of the unmarked
