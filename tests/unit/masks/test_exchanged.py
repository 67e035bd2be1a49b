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
