"""What stands beside a picture: the call on an image, and what the mask draws in it."""

import types

import numpy as np
import pytest

from medae_jax.tasks.anomaly import captions

SLICE = "lesion marked, but slice score below the image threshold"


def case(marked, slices=True, score=0.1, threshold=0.5):
  """(evaluator, case): a lesion of 4 pixels, of which the map marks some, and others besides."""
  mask, amap = np.zeros((4, 4, 1)), np.zeros((4, 4, 1))
  mask[0], amap[0, :marked] = 1, 0.9
  amap[2, :max(0, marked - 4)] = 0.9
  evaluator = types.SimpleNamespace(
      calibration={"image_threshold": 0.3, "threshold": threshold}, image_scores={"model": np.array([score])},
      label=np.array([1]), metas=[{"slice": 3} if slices else {}])
  return evaluator, {"row": 0, "map": amap, "mask": mask}


@pytest.mark.parametrize("marked, slices, said", [
    (4, True, SLICE), (2, True, SLICE), (1, True, "missed"),
    (0, True, "missed"), (4, False, "lesion marked, but image score below the image threshold")])
def test_a_lesion_that_is_drawn_well_is_not_missed(marked, slices, said):
  assert captions.confusion_of(*case(marked, slices)) == said


def test_other_verdicts_stay():
  evaluator, one = case(4, score=0.4)
  assert captions.confusion_of(evaluator, one) == "found"
  evaluator.image_scores["model"][0] = 0.2
  for change in ({"mask": None}, {"map": one["map"] * 0}):
    assert captions.confusion_of(evaluator, {**one, **change}) == "missed"
  assert captions.confusion_of(*case(4, threshold=None)) == "missed"
  evaluator.label[0] = 0
  assert captions.confusion_of(evaluator, one) == "rightly normal"


@pytest.mark.parametrize("label, said", [(1, ("found", "missed")), (0, ("false alarm", "rightly normal")),
                                         (-1, ("called abnormal", "called normal"))])
def test_the_call_on_an_image_and_its_label(label, said):
  assert tuple(captions.confusion(score, label, 0.3) for score in (0.4, 0.3)) == said  # above, not at the cut
  assert captions.confusion(0.4, label, None) == ""


def test_what_stands_above_the_picture_of_a_prediction():
  assert captions.of_prediction({"score": 0.01234}) == "score 0.0123"
  assert captions.of_prediction({"score": 1.0, "called_abnormal": 0, "mask_pixels": 7}) == (
      "score 1, called normal; outline: above the threshold")
  assert captions.of_prediction({"score": 1.0, "called_abnormal": 1, "mask_pixels": 0}) == (
      "score 1, called abnormal")


@pytest.mark.parametrize("axes, letters", [
    ("LPS", ["R", "L"]), ("RAS", ["L", "R"]),  # an axis towards the left begins at the right
    ("PLS", []), ("", [])])
def test_letters_of_the_sides(axes, letters):
  """Where the first axis of a slice is not left-right, or of a made-up head, no side is claimed."""
  def of(synthetic=False, meta=("slice",)):
    return captions.sides(types.SimpleNamespace(
        config=types.SimpleNamespace(data={"orientation": axes}), metas=[dict.fromkeys(meta, 0)],
        dataset=types.SimpleNamespace(synthetic=synthetic)))
  assert of() == letters and of(synthetic=True) == of(meta=()) == []


@pytest.mark.parametrize("slices, other, said", [
    (True, 9, ["slice 4", "no lesion"]), (False, 9, ["normal"]),
    (True, 0, ["slice 4", "taken for normal"]), (True, -1, ["slice 4", "taken for normal"])])
def test_without_a_lesion_is_said_of_slices_of_sets_with_lesions_alone(slices, other, said):
  """"no lesion" stood below slices of a folder without masks, tumours and all."""
  evaluator, _ = case(0, slices)
  vars(evaluator).update(label=np.array([0]), lesion_px=np.array([0, other]), group=np.array([0]),
                         patients=["p"], overlap=None)
  assert captions.describe(evaluator, 0) == [*said, "image score 0.1"]
