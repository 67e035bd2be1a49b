"""Masks of other images of the same size are told by the colours that they part."""

import numpy as np
from PIL import Image
import pytest

from data_pipelines.masks import exchanged, images


@pytest.fixture(name="pairs", scope="module")
def pictures(tmp_path_factory):
  """32 pictures with a dark blob each, and its mask."""
  root, rng, found = tmp_path_factory.mktemp("blobs"), np.random.default_rng(0), []
  rows, columns = np.mgrid[:40, :40]
  for i in range(32):
    blob = np.hypot(rows - rng.integers(10, 30), columns - rng.integers(10, 30)) < rng.integers(4, 9)
    picture = np.where(blob[..., None], 120, 180) + rng.normal(0, 20, (40, 40, 3))
    for name, pixels in (("i", picture.clip(0, 255)), ("m", 255 * blob)):
      Image.fromarray(pixels.astype(np.uint8)).save(root / f"{name}{i}.png")
    found.append((root / f"i{i}.png", root / f"m{i}.png"))
  return found


@pytest.mark.parametrize("change, said", [
    (lambda p: p, False), (lambda p: [(a, p[i - 1][1]) for i, (a, _) in enumerate(p)], True),
    (lambda p: [(a, p[i - 1][1]) for i, (a, _) in enumerate(p[:20])], False),  # too few to tell
    (lambda p: [(a, p[i - 1][1]) if i < 6 else (a, b) for i, (a, b) in enumerate(p)], False)])
def test_masks_of_other_images_are_said(pairs, caplog, change, said):
  """They have the same size and names that nothing contradicts."""
  images.check_pairs(change(pairs))
  assert ("are masks exchanged" in caplog.text) == said


def test_the_share_by_hand():
  """Three images of four pixels; the first two are parted by their own masks, the third by the first's."""
  masks = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], bool)
  values = np.array([[9, 0, 0, 0], [0, 9, 0, 0], [9, 0, 0, 0]], float)[..., None]
  assert exchanged.own_share(values, masks) == pytest.approx(2 / 3)
  assert exchanged.own_share(values[:2], masks[:2]) == 1


def test_one_mask_for_all_images_is_said(tmp_path, caplog):
  """The field of view of a camera, or one mask under many names: it was everybody's lesion."""
  def said(marks):
    caplog.clear()
    pairs = []
    for i, mark in enumerate(marks):
      mask = np.zeros((20, 30), np.uint8)
      mask[mark] = 255
      pairs.append((_save(tmp_path / f"a{i}.png", np.full((20, 30, 3), 40 + i, np.uint8)),
                    _save(tmp_path / f"m{i}.png", mask)))
    images.check_pairs(pairs)
    return "mark the same pixels" in caplog.text
  assert said([slice(2, 9)] * 5)
  assert not said([slice(2, 9)] * 3) and not said([slice(2 + i, 9) for i in range(5)])
  assert not said([slice(0, 0)] * 5)  # none marks anything: said otherwise


def _save(path, pixels):
  Image.fromarray(pixels).save(path)
  return path


@pytest.mark.parametrize("rows, columns, inner, frame", [
    (2, 2, 0, True), (2, 0, 0, False), (0, 2, 0, False), (1, 2, 0, False), (2, 1, 0, False),
    (2, 2, 1, False)])
def test_a_frame_is_marked_on_all_four_sides_and_not_within(rows, columns, inner, frame):
  mask = np.full((6, 9), float(inner))
  mask[[0, -1][:rows]] = 1
  mask[:, [0, -1][:columns]] = 1
  assert images.told_of(mask).frame == frame
