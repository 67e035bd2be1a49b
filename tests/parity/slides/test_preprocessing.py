"""Annotations, masks, tissue, patches and sizes against golden/stain_normalization; all of them exact."""

import json
import re

import numpy as np
import pytest

from data_pipelines.formats import arrays
from data_pipelines.ops import resize
from data_pipelines.slides import annotations, cells, lesions, reduced, tissue
from tests.golden_cases import file_cases, golden_files

FAMILY = "stain_normalization"


@pytest.fixture(params=file_cases(FAMILY, "camelyon_preprocessing*.npz"))
def case(request):
  """Arrays by name; those whose names say a size, which is another in other files, by name without it."""
  found = arrays.read_some(request.param, arrays.names_of(request.param))
  short = {re.sub(r"(mask_small|x40)_[\dx]+$|(nih_in|nih_out)\d+$", r"\1\2", k): v for k, v in found.items()}
  return {**short, "suffix": request.param.stem.removeprefix("camelyon_preprocessing")}


@pytest.fixture
def polygons(case):
  """Of the slide that the masks show: the one file, or that of the same suffix."""
  files = golden_files(FAMILY, "slide_*.xml")
  return annotations.read_xml(next((f for f in files if f.stem.endswith(case["suffix"])), files[0]))


@pytest.mark.parametrize("file", file_cases(FAMILY, "*.xml"))
def test_annotations_become_their_json(file, tmp_path):
  found = annotations.read_xml(file)
  assert found == json.loads(file.with_suffix(".json").read_text())
  annotations.write_json(tmp_path / "a.json", found)
  assert (tmp_path / "a.json").read_text() == file.with_suffix(".json").read_text()
  assert annotations.read_json(tmp_path / "a.json") == found


def test_masks_at_1_256_without_the_full_image(case, polygons, monkeypatch):
  width, height = map(int, case["slide_size_wh"])
  np.testing.assert_array_equal(lesions.published(polygons, width, height), case["mask_level8_nearest"])
  monkeypatch.setattr(lesions, "STRIP", width * 4000)  # several strips
  np.testing.assert_array_equal(lesions.published(polygons, width, height, bicubic=True),
                                case["mask_level8_default_bicubic"])


def test_full_mask_in_strips(case, polygons):
  width, height = map(int, case["slide_size_wh"])
  counts, picked, rows = np.zeros(3, np.int64), [], 64 * 32
  for strip in lesions.published_strips(polygons, width, height, rows):
    counts += [np.count_nonzero(strip == value) for value in (0, lesions.TUMOR, lesions.HOLE)]
    picked.append(strip[::64, ::64])
  np.testing.assert_array_equal(counts, case["mask_full_label_counts_0_127_255"])
  np.testing.assert_array_equal(np.concatenate(picked), case["mask_full_every64"])
  area = lesions.shares(polygons, width, height).sum() * 256.0 ** 2
  assert area == pytest.approx(counts[1], rel=2e-3)  # Pillow's outline adds half a pixel


def test_small_mask(case):
  small = annotations.read_json(golden_files(FAMILY, f"slide_small{case['suffix']}.json")[0])
  wanted = case["mask_small"]
  found, = lesions.published_strips(small, wanted.shape[1], wanted.shape[0], wanted.shape[0])
  np.testing.assert_array_equal(found, wanted)


def test_tissue(case):
  found = tissue.otsu(tissue.grey(case["thumbnail"]))
  assert found == pytest.approx(float(case["otsu_threshold"]), abs=1e-12)
  np.testing.assert_array_equal(tissue.dark(case["thumbnail"]), case["tissue_mask"])
  np.testing.assert_array_equal(tissue.cells(case["thumbnail"]), case["normal_mask_thirds"])
  shape = tuple(case["tall_mask_shape"])
  tall = np.unpackbits(case["tall_mask_in"])[:shape[0] * shape[1]].reshape(shape).astype(bool)
  np.testing.assert_array_equal(tissue.whole_cells(tissue.opened(tissue.without_border(tall))),
                                case["tall_mask_thirds"])


def _drawn(whole, wanted):
  """50 of the cells as the published code draws them, `wanted`; files do not say with which seed."""
  draws = (cells.draw(whole, 50, np.random.RandomState(seed)) for seed in range(10000))
  return next(found for found in draws if wanted(found))


def test_normal_patches_in_the_published_order(case):
  whole = tissue.cells(case["thumbnail"])
  wanted = case["coords_wh_normal_all"]
  for count, key in ((50, "coords_wh_normal"), (len(wanted), "coords_wh_normal_all")):
    assert len(cells.draw(whole, count, np.random.default_rng(0))) == len(case[key])
  chosen = _drawn(whole, lambda found: np.array_equal(found, case["coords_wh_normal"]))
  slide, _, _ = case["normal_patch_names_sorted"][0].partition("_normal_")
  found = sorted(f"{p.stem}.jpg" for p in cells.patches(slide, "normal", chosen))
  assert found == case["normal_patch_names_sorted"].tolist()
  assert {p.stem for p in map(cells.parse, found)} == {f[:-4] for f in found}


@pytest.mark.parametrize("form", ["nearest", "bicubic"])
def test_tumour_patches(case, form):
  mask = case["mask_level8_default_bicubic" if form == "bicubic" else "mask_level8_nearest"]
  np.testing.assert_array_equal(tissue.cell_means(mask).astype(np.uint8), case[f"annotation_thirds_{form}"])
  whole = tissue.cells(case["thumbnail"])
  wanted = case[f"tumor_patch_names_sorted_{form}"].tolist()
  slide, _, _ = "".join(wanted[:1]).partition("_tumor_")
  names = lambda chosen: sorted(f"{p.stem}.jpg" for p in cells.patches(slide, "tumor", chosen))
  exact, published = (cells.tumor_cells(mask, whole, exact) for exact in (True, False))
  assert names(_drawn(published, lambda found: names(found) == wanted)) == wanted
  assert not (exact & ~published).any()


def test_label_collision_is_kept_on_demand_only(case):
  mask = case["label_collision_in"]
  whole = np.ones_like(case["label_collision_out"], bool)
  assert (tissue.cell_means(mask).astype(np.uint8) == case["label_collision_out"]).all()
  assert cells.tumor_cells(mask, whole, exact=False).all() and not cells.tumor_cells(mask, whole).any()


def test_reduced_patches(case):
  np.testing.assert_array_equal(reduced.reduced(case["x40"], 2), case["x20"])
  np.testing.assert_array_equal(reduced.reduced(case["x40"], 4), case["x10"])


def test_radiographs_at_300(case):
  wanted = case["nih_out"]
  found = resize.antialiased(case["nih_in"][..., None], wanted.shape[0])
  np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)
