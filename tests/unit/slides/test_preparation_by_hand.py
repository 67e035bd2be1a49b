"""Tissue, drawing, outlines and files of the published Camelyon16 preparation: its edges, by hand."""

import io
import zlib

import numpy as np
from PIL import Image
import pytest

from data_pipelines.formats import writing
from data_pipelines.slides import annotations, cells, stain, stain_matrix, tissue
from data_pipelines.slides.camelyon import settings as fields, steps
from tests.unit.slides.test_patch_rules import Records, step_slide


def test_what_is_as_grey_as_the_threshold_is_tissue(monkeypatch):
  image = np.uint8([[[10] * 3, [20] * 3, [30] * 3]])
  monkeypatch.setattr(tissue, "otsu", lambda values: values[0, 1])
  np.testing.assert_array_equal(tissue.dark(image), [[True, True, False]])


@pytest.mark.parametrize("height, rows, columns", [(700, (30, 670), (30, 270)), (701, (100, 601), (50, 300))])
def test_more_than_700_rows_have_another_border(height, rows, columns):
  kept = np.nonzero(tissue.without_border(np.ones((height, 300), bool)))
  assert [(int(k.min()), int(k.max()) + 1) for k in kept] == [rows, columns]


def test_opening_keeps_what_the_edge_of_the_picture_cuts():
  """Tall slides have no border on the right: tissue there is tissue to the last column."""
  mask = np.zeros((7, 7), bool)
  mask[2:5, 5:] = mask[:2, :2] = True  # of the squares around their middles, what lies on the picture
  alone = mask.copy()
  alone[6, 3] = True
  np.testing.assert_array_equal(tissue.opened(alone), mask)


def mosaic(*cells_):
  """uint8 [3, 3 n]: the mask of n cells, each by its nine values."""
  return np.concatenate([np.reshape(c, (3, 3)) for c in cells_], 1).astype(np.uint8)


@pytest.mark.parametrize("parity", [True, False])
def test_with_parity_mixtures_of_mean_127_are_tumour(tmp_path, monkeypatch, parity):
  monkeypatch.setattr(tissue, "cells", lambda thumbnail, border: np.array([[True, True, True, False]]))
  lesion = mosaic([127] * 9, [127, 255, 0] * 3, [127] * 8 + [0], [127] * 9)
  drawn = steps._drawn(step_slide(tmp_path, parity=parity, mask="nearest"), None, lesion)
  assert sorted(p.left // cells.SIDE for p in drawn) == ([0, 1] if parity else [0])


def test_with_parity_cells_are_shuffled_as_numpys_legacy_generator_does(tmp_path, monkeypatch):
  """Row by row as (column, row), seeded with the seed and the name of the slide."""
  where = np.ones((4, 5), bool)
  where[1, 2] = False
  monkeypatch.setattr(tissue, "cells", lambda thumbnail, border: where)
  listed = [(column, row) for row in range(4) for column in range(5) if (column, row) != (2, 1)]
  np.random.RandomState([7, zlib.crc32(b"normal_003")]).shuffle(listed)
  drawn = steps._drawn(step_slide(tmp_path, "normal_003", parity=True, seed=7, per_slide=6), None, None)
  assert [(p.left // cells.SIDE, p.top // cells.SIDE) for p in drawn] == listed[:6]


@pytest.mark.parametrize("border, asked", [(-1, None), (0, 0), (12, 12)])
def test_the_border_is_the_published_one_unless_it_is_said(tmp_path, monkeypatch, border, asked):
  seen = []
  monkeypatch.setattr(tissue, "cells", lambda thumbnail, border: seen.append(border) or np.ones((2, 2), bool))
  slide = step_slide(tmp_path, "normal_003")
  slide.settings = fields.resolve(fields.Settings(str(tmp_path), "", border=border))
  steps._drawn(slide, None, None)
  assert seen == [asked]


def outline(points, orders):
  """XML of one tumour."""
  vertices = "".join(f'<Coordinate {order} X="{x}" Y="{y}"/>' for order, (x, y) in zip(orders, points))
  return ('<ASAP><Annotations><Annotation Name="a" PartOfGroup="Tumor" Type="Polygon"><Coordinates>'
          f"{vertices}</Coordinates></Annotation></Annotations></ASAP>")


@pytest.mark.parametrize("orders, want", [
    (("2", "0", "10"), [[2, 8], [2, 4], [4, 1]]), (("", "0", "1"), [[2, 4], [2, 8], [4, 1]])])
def test_vertices_go_by_their_order_where_all_have_one_and_are_rounded_half_to_even(tmp_path, orders, want):
  """The published code takes them as they stand: docs/prepare_slides.md."""
  points = [(2.5, 3.5), (1.7, 8.2), (3.5, 0.6)]
  (tmp_path / "a.xml").write_text(outline(points, [o and f'Order="{o}"' for o in orders]))
  assert annotations.read_xml(tmp_path / "a.xml")["tumor"][0]["vertices"] == want


def test_jpeg_has_pillows_own_quality():
  image = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
  said = {q: io.BytesIO() for q in (75, 90)}
  for quality, file in said.items():
    Image.fromarray(image).save(file, "JPEG", quality=quality)
  assert writing.encoded(image, ".jpg") == said[75].getvalue() != said[90].getvalue()
  np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(writing.encoded(image, ".png")))), image)


def test_what_is_left_out_and_where_the_stains_come_from():
  """As published; slides of testing that are not annotated exhaustively are no test."""
  made = fields.Settings("a", "b")
  assert made.left_out == (*(f"normal_{n:03d}" for n in (27, 45, 108, 144, 150, 158)), "test_114")
  assert (made.target_slide, made.target_left, made.target_top, made.target_side) == (
      "normal_056", 23808, 120832, 2816)
  assert (made.per_slide, made.border, made.least_lesion, made.scales) == (50, -1, 1, ("x40", "x20", "x10"))


@pytest.mark.parametrize("parity, used", [(True, 2 * stain.SAMPLES), (False, stain.SAMPLES)])
def test_with_parity_the_stains_come_from_all_of_the_tissue(monkeypatch, parity, used):
  """And the one of more red is haematoxylin; else from 20,000 pixels, by what is known of both stains."""
  seen = []
  atoms = stain_matrix.unit(np.array([[.40, .60, .70], [.41, .90, .05]]))
  monkeypatch.setattr(stain_matrix, "learn", lambda density: seen.append(density.shape) or atoms)
  image = np.full((300, 200, 3), 100, np.uint8)
  image[:100] = 255  # glass
  found = stain._stains_of(image, parity).matrix
  assert seen == [(3, used)]
  np.testing.assert_allclose(found, atoms[::-1] if parity else atoms, atol=1e-8)


@pytest.mark.parametrize("mask, want", [("area", (6 * 127 + 255) / 9 / 255), ("nearest", 6 / 9)])
def test_a_published_mask_says_lesion_by_127_and_one_of_areas_by_its_share(tmp_path, monkeypatch, mask, want):
  """A patch of which six pixels are 127, and one 255: of the published one a hole, else all lesion."""
  lesion = np.zeros((30, 36), np.uint8)
  lesion[:3, :2], lesion[0, 2] = 127, 255
  slide = step_slide(tmp_path, records=Records(masks="m"), mask=mask)
  slide.pixels.overview = lambda downsample: np.full((30, 36, 3), 90, np.uint8)
  slide.pixels.read, slide.pixels.mpp = lambda level, x, y, w, h: np.zeros((h, w, 3), np.uint8), 0.25
  slide.store.folder, slide.store.write = tmp_path, lambda file, data: {"file": file}
  slide.store.record = lambda name, step, key=None: {"key": "m", "files": [{"file": "mask.png"}]}
  monkeypatch.setattr(steps.images, "read_8bit", lambda path, channels: lesion[..., None])
  monkeypatch.setattr(steps, "_drawn", lambda *_: [cells.Patch("tumor_001", "tumor", 0, 0)])
  seen = []
  monkeypatch.setattr(steps.lesions, "check_on_tissue", lambda path, share, dark: seen.append(share))
  row, = steps.cut(slide)[1]()["rows"]
  assert row["lesion"] == pytest.approx(want, abs=1e-4)
  np.testing.assert_allclose(seen[0], lesion / 255 if mask == "area" else lesion == 127)
