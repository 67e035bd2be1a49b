"""The original's generator: its chances, its dots, and frames that are drawn on before they are resized.

Numbers are those of its description: colours 30, 36 and 34 %, a label with 60 %, fifteen steps of a line.
"""

import numpy as np
from PIL import Image
import pytest

from data_pipelines import dataset, stream
from data_pipelines.datasets import annotations
from data_pipelines.fields import changed
from data_pipelines.marks import reference
from data_pipelines.marks.layers import Layer, Mark

CYAN, YELLOW, WHITE = (0, 1, 1), (1, 1, 0), (1, 1, 1)


class Scripted:
  """Draws that are given: uniform numbers in their order; places of points; the first of the labels."""

  def __init__(self, uniform, places):
    self._uniform, self._places = iter(uniform), iter(places)

  def random(self):
    return next(self._uniform)

  def integers(self, high, size=None):
    return 0 if size is None else np.array(next(self._places))


def marks(uniform, size=(60, 200), points=((30, 10), (30, 160))):
  places = [[row * size[1] + column for row, column in points]] * 3
  found = reference.draw(Scripted(uniform, places), np.full((*size, 1), 0.4, np.float32))
  return {kind: [m.layers[0] for m in found if m.kind == kind] for kind in ("label", "calipers")}


@pytest.mark.parametrize("u, colour", [(0, CYAN), (0.299, CYAN), (0.301, YELLOW), (0.659, YELLOW),
                                       (0.661, WHITE), (0.999, WHITE)])
def test_shares_of_the_three_colours(u, colour):
  for first, second in ((u, 0.5), (0.5, u)):
    found = marks([first, second, 0.0])
    drawn = found["label"] if first == u else found["calipers"]
    assert {tuple(layer.colour.tolist()) for layer in drawn} == {colour}
    assert len(found["calipers"]) == 2  # always, in one colour


@pytest.mark.parametrize("u, labels", [(0.0, 1), (0.6, 1), (0.601, 0), (0.999, 0)])
def test_a_label_is_drawn_with_a_chance_of_six_tenths(u, labels):
  assert len(marks([0.5, 0.5, u])["label"]) == labels


def test_a_line_has_fifteen_steps_whatever_its_length():
  """Cut down to whole pixels; each dot is a plus of five."""
  for last in (167, 93):
    alpha = marks([0.5, 0.5, 0.9], points=((30, 10), (30, last)))["calipers"][0].alpha
    want = [10 + i * (last - 10) // 15 for i in range(16)]
    inner = [column for column in want if 19 <= column <= last - 9]  # cross-hairs reach 7 pixels
    between = slice(18, last - 7)
    assert [18 + c for c in np.flatnonzero(alpha[29, between])] == inner
    assert [18 + c for c in np.flatnonzero(alpha[31, between])] == inner
    assert {c + d for c in inner for d in (-1, 0, 1)} <= set(np.flatnonzero(alpha[30]).tolist())


@pytest.mark.parametrize("style", ["reference", "catalogue"])
def test_marks_of_the_original_are_resized_with_their_frame(tmp_path, monkeypatch, style):
  """A block of 4x4 at half the size: Pillow's triangle gives its rows 1/8, 7/8, 7/8, 1/8.

  The original writes annotated files, and training resizes them; marks of the catalogue have the size that
  they are asked for, whatever the frame was.
  """
  block = [Mark("block", [Layer(8, 8, np.ones((4, 4), np.float32), np.ones(3, np.float32))])]
  monkeypatch.setattr(reference, "draw", lambda rng, clean: block)
  monkeypatch.setattr(annotations.catalogue, "draw", lambda rng, clean, options: block)
  (tmp_path / "clean").mkdir()
  for i in range(4):
    Image.fromarray(np.full((32, 32), 100, np.uint8)).save(tmp_path / "clean" / f"p{i}_0.png")
  cfg = changed(annotations.defaults(), dir=str(tmp_path), channels=1, resize=(16, 16), image_size=(16, 16),
                flip_lr=0.0, val_share=0.25, test_share=0.25)
  cfg.marks.update(style=style, blur=(0.0, 0.0))
  data = dataset.open_dataset(cfg, 0)
  want, covered = np.full((16, 16), 100.0), np.zeros((16, 16))
  if style == "reference":
    share = np.array([1, 7, 7, 1]) / 8
    want[3:7, 3:7] += 155 * np.outer(share, share)
    covered[3:7, 3:7] = 1
  else:
    want[8:12, 8:12], covered[8:12, 8:12] = 255, 1
  batch = next(stream.train_stream(data, cfg, batch_size=2, first_step=0, seed=0))
  scored = data.split("test").read_one(0)
  for example in ({k: v[0] for k, v in batch.items()}, scored):
    np.testing.assert_allclose(255 * example["image"][..., 0], want, atol=1.01)
    np.testing.assert_allclose(255 * example["clean"], 100, atol=1e-3)
    np.testing.assert_array_equal(example["mask"][..., 0], covered)
