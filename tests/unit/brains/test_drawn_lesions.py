"""SYNTHETIC lesions for scores that are fitted without marked ones."""

import numpy as np
import pytest

from data_pipelines.brains import drawn_lesions as drawn
from data_pipelines.dataset import ArraySource
from data_pipelines.errors import UserError


def healthy(n=6, channels=3):
  y, x = np.indices((64, 64)) - 32
  brain = (x**2 + y**2 < 26**2).astype(np.float32)[None, ..., None]
  return ArraySource({"image": np.tile(0.5 * brain, (n, 1, 1, channels))})


def test_lesions_look_as_they_do_on_each_modality():
  source = drawn.DrawnLesions(healthy(24), ("flair", "t1", "t2w"))
  change = source.read(np.arange(24))
  plain, mask = healthy(24).arrays["image"], change["mask"][..., 0] > 0
  inside = [(change["image"] - plain)[..., c][mask].mean() for c in range(3)]
  assert inside[0] > 0.15 and inside[2] > 0.15 and inside[1] < -0.05
  assert np.all(change["image"][plain == 0] == 0) and np.all(change["image"][plain > 0] > 0)
  far = np.abs(change["image"] - plain).max(-1) == 0
  assert not (mask & far).any() and (far & (plain[..., 0] > 0)).mean() > 0.2
  area = mask.sum((1, 2))
  assert (area > 0).mean() > 0.8 and area.max() < 0.35 * (plain[0, ..., 0] > 0).sum() and len(set(area)) > 12


def test_a_lesion_depends_on_its_number_alone():
  source = drawn.DrawnLesions(healthy(), ("t1n", "flair", "t1ce"))
  some, all_ = source.read(np.array([4, 1])), source.read(np.arange(6))
  for key in ("image", "mask"):
    np.testing.assert_array_equal(some[key], all_[key][[4, 1]])
  other = drawn.DrawnLesions(healthy(), ("t1n", "flair", "t1ce"), seed=1).read(np.arange(6))
  assert (other["mask"] != all_["mask"]).any()
  np.testing.assert_array_equal(healthy().arrays["image"], healthy().read(np.arange(6))["image"])


def test_a_slice_without_brain_has_none():
  image, mask = drawn.draw(np.random.default_rng(0), np.zeros((8, 8, 1), np.float32), [(0.2, 0.4)])
  assert not image.any() and not mask.any()


def test_unknown_modalities_are_refused_and_others_stay_as_they_are():
  with pytest.raises(UserError, match="config.eval.fit_lesions='drawn': it is known of flair, t2"):
    drawn.DrawnLesions(healthy(), ("swi", "image", "ct"))
  found = drawn.DrawnLesions(healthy(), ("flair", "ct", "swi")).read(np.arange(6))["image"]
  np.testing.assert_array_equal(found[..., 1:], healthy().arrays["image"][..., 1:])
  assert drawn.known(("ct", "FLAIR")) and not drawn.known(())
