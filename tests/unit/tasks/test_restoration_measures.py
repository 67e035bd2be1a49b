"""Which image each measure of a restored frame compares with which."""

import types

import ml_collections
import numpy as np
import pytest

from medae_jax.tasks.restoration import evaluator, measures


def frames():
  """(result, clean, annotated, mask): a 6x6 frame with a mark of 2x2; noise lies outside it as well."""
  clean = np.full((6, 6, 1), 0.5, np.float32)
  annotated = clean.copy()
  annotated[5] += 0.25                     # a row of the file differs from its clean partner
  mask = np.zeros((6, 6), bool)
  mask[1:3, 1:3] = True
  annotated[mask] = 1.0
  result = annotated.copy()
  result[1, 1:3] = 0.5                     # half of the mark is removed,
  result[0, 0] = 0.75                      # and one pixel beside it is changed
  return result, clean, annotated, mask


def test_errors_are_to_the_clean_image_and_changes_to_the_annotated_one():
  found = measures.measure(*frames(), level=1.0)
  assert found["inside_pixels"] == 4 and found["outside_pixels"] == 32
  assert found["inside_abs"] == pytest.approx(2 * 0.5) and found["inside_sq"] == pytest.approx(2 * 0.25)
  assert found["removed"] == 2
  assert found["outside_abs"] == pytest.approx(6 * 0.25 + 0.25)
  assert found["outside_changed"] == 1     # the row that differs from the clean image was left alone
  square = (2 * 0.25 + 7 * 0.0625) / 36
  assert found["psnr"] == pytest.approx(-10 * np.log10(square))


def test_a_pixel_counts_as_removed_up_to_the_level():
  result, clean, annotated, mask = frames()
  result[2, 1] = 0.5 + 10 / 255
  assert measures.measure(result, clean, annotated, mask, level=10)["removed"] == 3
  assert measures.measure(result, clean, annotated, mask, level=9)["removed"] == 2


def test_a_split_pools_pixels_and_averages_frames():
  one = measures.measure(*frames(), level=1.0)
  _, clean, _, mask = frames()
  two = measures.measure(clean, clean, clean, 0 * mask > 0, level=1.0)   # a frame without marks, untouched
  found = measures.summary([one, two], np.array([True, False]))
  assert found["psnr"] == pytest.approx(one["psnr"])                     # of marked frames alone
  assert found["mae_inside"] == pytest.approx(0.25) and found["removed_share"] == 0.5
  assert found["mae_outside"] == pytest.approx(1.75 / 68)
  assert found["untouched_changed_share"] == pytest.approx(1 / 68)
  assert found["identity_mae"] == 0.0 and found["identity_changed_share"] == 0.0
  twice = measures.summary([one, two], np.array([True, False]), np.array([2, 1]))
  assert twice["mae_outside"] == pytest.approx(3.5 / 100)


class _Source:
  """The frame above, a smaller one without marks, and a frame that restoring makes worse."""

  metas = [{"id": "a", "group": "p", "height": 6, "width": 6},
           {"id": "b", "group": "q", "height": 4, "width": 5}, {"id": "c", "group": "p"}]

  def __len__(self):
    return 3

  def meta(self, i):
    return self.metas[i]


def _batch():
  result, clean, annotated, mask = frames()
  mask = mask[..., None].astype(np.float32)
  worse = np.where(mask > 0, np.float32(0.0), annotated)  # 0.5 of error as before, and one pixel more
  worse[0, 5] = 0.0
  stack = lambda *parts: np.stack([*parts, np.full_like(parts[0], np.nan)])  # the last row is padding
  return ({"image": stack(annotated, clean, annotated), "clean": stack(clean, clean, clean),
           "mask": stack(mask, 0 * mask, mask), "valid": np.array([True, True, True, False]),
           "position": np.array([0, 1, 2, 0])},
          {"recon": stack(result, clean, worse),
           "marks": stack((result != annotated) * 1.0, 0 * mask, (worse != annotated) * 1.0)})


def test_rows_and_pictures_of_a_split_are_those_of_its_frames():
  """What predict writes, each frame at its own size: every column of the table, the order of the panel."""
  config = ml_collections.ConfigDict({
      "method": {"score": {"fill": "network", "threshold": 0.5}},
      "eval": {"inpaint": "none", "residual_level": 1.0, "bootstrap": 20, "panels": 2}})
  judge = evaluator.Evaluator(config, types.SimpleNamespace(split=lambda _: _Source()), "test", None)
  batch, outputs = _batch()
  judge.update(batch, outputs)
  a, b, c = judge.rows()
  decibel = lambda square: -10 * np.log10(square / 36)
  assert {k: a[k] for k in a if "ssim" not in k} == pytest.approx({
      "id": "a", "group": "p", "drawn_pixels": 4, "found_pixels": 3, "found_and_drawn": 2,
      "psnr": decibel(2 * 0.25 + 7 / 16), "psnr_before": decibel(4 * 0.25 + 6 / 16), "mae_inside": 1.0 / 4,
      "mae_outside": 1.75 / 32, "removed_share": 0.5, "untouched_changed": 1})
  assert a["ssim"] == pytest.approx(measures.ssim(outputs["recon"][0], batch["clean"][0]))
  assert a["ssim_before"] == pytest.approx(measures.ssim(batch["image"][0], batch["clean"][0]))
  assert (b["psnr"], b["drawn_pixels"], b["mae_inside"], b["mae_outside"]) == (100.0, 0, None, 0.0)
  assert judge.numbers["nothing"][1]["outside_pixels"] == 20
  assert c["psnr"] == pytest.approx(decibel(4 * 0.25 + 6 / 16 + 0.25)) and c["psnr"] < c["psnr_before"]
  assert (c["mae_outside"], c["removed_share"]) == (pytest.approx(2.0 / 32), 0.0)
  assert judge.choose().tolist() == [0, 2, 2]  # from best to worst, then what became worse
  points = judge.curves()["dots"]["points"]
  assert [p["name"] for p in points] == ["a", "c"] and judge.curves()["unit"] == "groups"
  assert [p["value"] for p in points] == pytest.approx([r["psnr"] - r["psnr_before"] for r in (a, c)])
