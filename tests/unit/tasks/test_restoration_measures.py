"""Which image each measure of a restored frame compares with which."""

import types

import ml_collections
import numpy as np
import pytest

from medae_jax.metrics import bootstrap
from medae_jax.reporting import panels
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


def _judge(fit=True, **data):
  config = ml_collections.ConfigDict({
      "method": {"score": {"fill": "network", "threshold": 0.25}},
      "eval": {"inpaint": "none", "residual_level": 1.0, "bootstrap": 20, "panels": 2, "fit_threshold": fit,
               "threshold_beta": 2.0}})
  source = types.SimpleNamespace(split=lambda _: _Source(), name="frames", synthetic=False, **data)
  judge = evaluator.Evaluator(config, source, "test", None)
  batch, outputs = _batch()
  judge.update(batch, outputs)
  return judge, batch, outputs


def test_intervals_draw_whole_groups_and_differences_are_paired():
  """Expected: the numbers of a list in which each frame stands as often as its group was drawn."""
  judge, _, _ = _judge()
  found = judge.result()
  draws = {key: [] for key in found["ci95"]}
  for p, q in bootstrap.resample_weights(2, 20).astype(int):
    drawn = [i for i, n in enumerate((p, q, p)) for _ in range(n)]
    own, before = (measures.summary([judge.numbers[name][i] for i in drawn], judge.marked[drawn])
                   for name in ("fill_network", "nothing"))
    for key, values in draws.items():
      first, _, minus = key.partition("_minus_")
      values.append(own[first] - before[first] if minus else own[first])
  assert set(draws) == {"psnr", "ssim", "mae_inside", "removed_share", "mae_outside", "psnr_minus_baseline",
                        "mae_inside_minus_baseline"}
  for key, values in draws.items():
    assert found["ci95"][key] == pytest.approx(bootstrap.interval(values)), key
  assert (found["marks_precision"], found["marks_recall"], found["marks_dice"]) == pytest.approx(
      (6 / 8, 6 / 8, 12 / 16))  # 2 of 3 found and 4 of 5 are drawn; 4 drawn in two frames
  assert (found["n_marked"], found["drawn_share"]) == (2, pytest.approx(8 / (36 + 20 + 36)))
  assert found["psnr"] == pytest.approx((judge.rows()[0]["psnr"] + judge.rows()[2]["psnr"]) / 2)
  assert found["model_better_by"]["difference"] == pytest.approx(found["psnr"] - found["baseline"]["psnr"])


def test_the_rule_of_the_threshold_is_said_as_it_was():
  assert _judge()[0].calibrate() == {"threshold": 0.25, "threshold_rule": "best F2 of drawn pixels on val"}
  assert _judge(fit=False)[0].calibrate()["threshold_rule"] == "config.method.score.threshold"


def test_pictures_stand_beside_the_numbers_of_their_own_frame():
  judge, batch, outputs = _judge()
  shown = judge.choose()
  assert shown.tolist() == [0, 2, 2]
  pick = lambda values: {k: v[shown] for k, v in values.items()}
  judge.show({**pick(batch), "position": np.arange(3), "valid": np.array([True, True, True])},
             pick(outputs), None)
  first, worst, again = judge.gallery()
  assert [c["title"] for c in (first, worst, again)] == ["a", "c", "c"]
  assert [c["part"] for c in (first, worst, again)] == ["panel", "panel", "worst"]
  assert [c["verdict"] for c in (first, worst)] == ["nearer to the clean frame", "worse than untouched"]
  row = judge.rows()[0]
  assert first["facts"] == [f"PSNR {row['psnr_before']:.1f} dB before, {row['psnr']:.1f} dB restored",
                            "2 of 4 drawn pixels found, 1 false"]
  cells = {c["head"]: c["picture"] for c in first["cells"]}
  level = lambda head, *at: int(cells[head][at][0])
  assert [level("annotated", 1, 1), level("clean", 1, 1), level("network alone", 1, 1)] == [255, 128, 128]
  assert [level("restored", 0, 0), level("restored", 2, 1), level("restored", 5, 5)] == [191, 255, 191]
  own, clean = cells["marks: found, false, missed"], batch["clean"][0].mean(-1)
  found, drawn = (x[0, ..., 0] == 1 for x in (outputs["marks"], batch["mask"]))
  np.testing.assert_array_equal(own, panels.verdict_overlay(clean, found, drawn, (0, 1)))
  assert len({tuple(own[at]) for at in ((1, 1), (0, 0), (2, 1), (4, 4))}) == 4  # found, false, missed, none
  (panel,) = judge.panels().values()
  assert panel.shape[-1] == 3 and panel.shape[0] > 2 * 6


def test_rows_and_pictures_of_a_split_are_those_of_its_frames():
  """What predict writes, each frame at its own size: every column of the table, the order of the panel."""
  judge, batch, outputs = _judge()
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
