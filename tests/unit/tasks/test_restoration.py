"""Numbers of restoration by hand, the threshold search, fillings, tiles."""

import contextlib
import importlib.util
import json
import sys
import types

import jax.numpy as jnp
import ml_collections
import numpy as np
from PIL import Image
import pytest

from medae_jax.core.errors import UserError
from medae_jax.losses import ssim
from medae_jax.tasks.restoration import evaluator, inpaint, measures, predictor

RNG = np.random.default_rng(0)


def test_measure_by_hand():
  clean = np.full((4, 4, 1), 0.5, np.float32)
  annotated = clean.copy()
  annotated[0, :2] = 1.0
  mask = annotated[..., 0] != 0.5
  result = annotated.copy()
  result[0, 0] = 0.51  # removed: 2.55 grey levels
  result[0, 1] = 0.6   # not removed
  result[3, 3] = 0.7   # touched without need
  row = measures.measure(result, clean, annotated, mask, 10.0)
  assert (row["inside_pixels"], row["outside_pixels"], row["removed"]) == (2, 14, 1)
  assert row["inside_abs"] == pytest.approx(0.11) and row["outside_abs"] == pytest.approx(0.2)
  assert row["outside_changed"] == 1
  square = (0.01**2 + 0.1**2 + 0.2**2) / 16
  assert row["psnr"] == pytest.approx(-10 * np.log10(square), rel=1e-5)
  total = measures.summary([row], np.array([True]))
  assert total["mae_inside"] == pytest.approx(0.055) and total["removed_share"] == 0.5
  assert total["residual_share"] == 0.5 and total["untouched_changed_share"] == 1 / 14
  assert np.isnan(total["identity_mae"])


def test_doing_nothing_on_frames_without_marks():
  clean = RNG.random((8, 8, 3), np.float32)
  row = measures.measure(clean, clean, clean, np.zeros((8, 8), bool), 10.0)
  total = measures.summary([row], np.array([False]))
  assert total["identity_mae"] == 0 and total["identity_changed_share"] == 0
  assert row["psnr"] == 100.0 and row["ssim"] == pytest.approx(1.0, abs=1e-4)
  assert np.isnan(total["psnr"]) and np.isnan(total["mae_inside"])


def test_weights_count_frames():
  rows = [measures.measure(np.full((4, 4, 1), v, np.float32), np.zeros((4, 4, 1), np.float32),
                               np.ones((4, 4, 1), np.float32), np.ones((4, 4), bool), 10.0)
          for v in (0.1, 0.4)]
  total = measures.summary(rows, np.array([True, True]), np.array([3, 1]))
  assert total["mae_inside"] == pytest.approx((3 * 0.1 + 0.4) / 4)


def test_ssim_equals_the_loss():
  a, b = RNG.random((20, 17, 3), np.float32), RNG.random((20, 17, 3), np.float32)
  loss = float(ssim.ssim_loss(jnp.asarray(a)[None], jnp.asarray(b)[None])[0])
  assert measures.ssim(a, b) == pytest.approx(1 - loss, abs=1e-5)


class _Frames:
  splits = ("val",)

  def split(self, _):
    return self

  def meta(self, _):
    return {"height": 12, "width": 14}


@pytest.mark.parametrize("dilate", [0, 1])
def test_threshold_has_the_best_f_beta(dilate):
  """Against a search that thresholds, grows and counts for every candidate; padding left out."""
  from scipy import ndimage
  mask = np.zeros((2, 16, 16, 1), np.float32)
  mask[:, 4:7, 3:9] = 1
  evidence = np.clip(0.3 * mask + RNG.uniform(0, 0.35, mask.shape), 0, 1).astype(np.float32)
  config = ml_collections.ConfigDict({"eval": {"fit_threshold": True, "threshold_beta": 2.0},
                                      "method": {"score": {"dilate": dilate}}})
  fitter, source = evaluator.fitter(config, _Frames())
  assert isinstance(source, _Frames)
  fitter.update({"image": mask, "mask": mask, "valid": np.array([True, True]),
                 "position": np.array([0, 1])}, {"map": evidence})
  found = fitter.result()["threshold"]

  def f2(threshold):
    hit = false = drawn = 0
    for k in range(2):
      marks = ndimage.binary_dilation(evidence[k, ..., 0] >= threshold, np.ones((3, 3)),
                                      dilate) if dilate else evidence[k, ..., 0] >= threshold
      truth = mask[k, :12, :14, 0] > 0
      marks = marks[:12, :14]
      hit, false = hit + (marks & truth).sum(), false + (marks & ~truth).sum()
      drawn += truth.sum()
    return 5 * hit / (4 * drawn + hit + false)
  best = max(f2(t) for t in np.arange(1, 1024) / 1024)
  assert f2(found) == pytest.approx(best, abs=1e-9)
  summary = fitter.summary()
  assert summary["f2"] == pytest.approx(best, abs=1e-9) and 0 < summary["precision"] <= 1
  unmarked, _ = evaluator.fitter(config, _Frames())  # where nothing is drawn nothing can be chosen
  unmarked.update({"image": mask, "mask": 0 * mask, "valid": np.array([True, True]),
                   "position": np.array([0, 1])}, {"map": evidence})
  assert unmarked.result() == {} == unmarked.summary()
  config.eval.fit_threshold = False
  assert evaluator.fitter(config, _Frames()) is None


def test_harmonic_filling_restores_a_plane():
  rows, cols = np.mgrid[0:20, 0:30]
  plane = (0.01 * rows + 0.02 * cols)[..., None].astype(np.float32)
  mask = np.zeros((20, 30), bool)
  mask[5:15, 8:20] = True
  damaged = plane.copy()
  damaged[mask] = 1
  filled = inpaint.harmonic(damaged, mask)
  np.testing.assert_allclose(filled, plane, atol=1e-5)
  np.testing.assert_array_equal(filled[~mask], damaged[~mask])
  np.testing.assert_array_equal(inpaint.harmonic(damaged, np.zeros((20, 30), bool)), damaged)
  np.testing.assert_array_equal(inpaint.harmonic(damaged, np.ones((20, 30), bool)), damaged)


@pytest.mark.parametrize("shape, n", [((6, 9), 3), ((6, 9), -3), ((9, 6), 3), ((9, 6), -3)])
def test_harmonic_filling_at_the_border(shape, n):
  image, mask = np.full((*shape, 3), 0.25, np.float32), np.zeros(shape, bool)
  corner = (slice(min(n, 0), max(n, 0) or None),) * 2
  image[corner], mask[corner] = 1, True
  np.testing.assert_allclose(inpaint.harmonic(image, mask), 0.25, atol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="OpenCV is optional")
@pytest.mark.parametrize("kind", ["telea", "ns"])
@pytest.mark.parametrize("channels", [1, 3])
def test_opencv_filling(kind, channels):
  image = np.full((16, 16, channels), 0.4, np.float32)
  mask = np.zeros((16, 16), bool)
  mask[6:9, 6:9] = True
  image[mask] = 1
  np.testing.assert_allclose(inpaint.opencv(image, mask, kind), 0.4, atol=2 / 255)


def test_no_filling():
  assert evaluator.fillings("none") == {}


def test_detected_marks_are_filled_as_asked():
  image = np.full((6, 6, 1), 0.25, np.float32)
  image[2:4, 2:4] = 1
  marks = image[..., 0] == 1
  recon = np.full((6, 6, 1), 0.75, np.float32)
  by_network = inpaint.restored("network", image, recon, marks)
  np.testing.assert_array_equal(by_network, np.where(marks[..., None], 0.75, 0.25))
  np.testing.assert_allclose(inpaint.restored("harmonic", image, recon, marks), 0.25, atol=1e-5)


# --------------------------------------------------------------------------------------- tiles
class _Echo(predictor.Predictor):
  """A predictor whose network returns its input: stitching must not change a pixel."""

  def __init__(self, tile, overlap, batch=3, fill="network", dilate=0):
    config = ml_collections.ConfigDict({
        "method": {"score": {"threshold": 0.9, "dilate": dilate, "fill": fill}}, "data": {"channels": 3},
        "predict": {"tile": tile, "overlap": overlap, "output": ""}, "eval": {"batch_size": batch}})
    self.shapes = set()

    def score(batch):
      self.shapes.add(batch["image"].shape)
      return {"recon": batch["image"], "map": batch["image"][..., :1]}
    super().__init__(config, None, score)


@pytest.mark.parametrize("size", [(32, 32), (20, 45), (64, 64), (65, 100), (150, 97), (7, 200)])
def test_tiles_cover_and_blend(size):
  images = RNG.random((2, *size, 3), np.float32)
  echo = _Echo(64, 16)
  recon, evidence, tiles = echo._tiled(images)
  np.testing.assert_allclose(recon, images, atol=1e-6)
  np.testing.assert_allclose(evidence, images[..., :1], atol=1e-6)
  assert len(echo.shapes) == 1, "one shape is compiled"
  shape = echo.shapes.pop()
  assert shape[1] % 32 == 0 and max(shape[1:3]) <= 64 and (tiles > 1) == (max(size) > 64)


@pytest.mark.parametrize("channels", [1, 3])
def test_predicted_filling_follows_the_config(channels):
  frame = np.full((1, 32, 32, channels), 0.5, np.float32)
  frame[:, 10:12, 10:12] = 1
  marked = frame[..., 0] == 1
  for fill, expected in (("network", 1.0), ("harmonic", 0.5)):
    recon, marks, _ = _Echo(32, 0, fill=fill)._restore(frame)
    np.testing.assert_array_equal(marks, marked)
    np.testing.assert_allclose(recon[marks], expected, atol=1e-5)


@pytest.mark.parametrize("wanted, channels", [(1, 1), (1, 3), (3, 1), (3, 3)])
def test_a_frame_keeps_its_own_channels_whatever_the_network_reads(wanted, channels):
  """Grey is repeated; of colour the network reads luma, and the tint below a mark is that around it."""
  echo, weights = _Echo(32, 0), np.array([0.299, 0.587, 0.114], np.float32)
  echo.config.data.channels, echo.config.method.score.threshold = wanted, 0.52
  around, mark = np.float32([0.4, 0.2, 0.1])[:channels], np.float32([1, 0.4, 0.2])[:channels]
  frame = np.broadcast_to(around, (1, 32, 32, channels)).copy()
  frame[:, 10:12, 10:12] = mark
  luma = lambda colour: colour @ weights if channels == 3 else colour[..., 0]
  want = np.repeat(luma(frame)[..., None], wanted, -1) if channels != wanted else frame
  np.testing.assert_allclose(echo._fed(frame), want, atol=1e-6)
  found, marks, _ = echo._restore(frame)
  assert found.shape == frame.shape and marks.sum() == 4
  below = luma(mark) + around - luma(around) if channels > wanted else mark  # this network returns its input
  np.testing.assert_allclose(found, np.where(marks[..., None], np.clip(below, 0, 1), frame), atol=1e-5)


def test_nothing_is_written_into_the_folder_of_the_frames(tmp_path):
  (tmp_path / "in").mkdir()
  (tmp_path / "in" / "a.png").touch()
  echo = _Echo(32, 0)
  for output, refused in ((tmp_path / "in", True), (tmp_path / "in/x/y", True), (tmp_path / "inside", False)):
    echo.config.predict.output = str(output)
    with pytest.raises(UserError, match="lies inside --input") if refused else contextlib.nullcontext():
      assert [p.name for p in echo.find_inputs(tmp_path / "in")] == ["a.png"]


@pytest.mark.parametrize("dilate, side", [(0, 2), (1, 4), (3, 8)])
def test_predicted_marks_are_grown_as_the_config_says_and_begin_at_its_threshold(dilate, side):
  frame = np.full((1, 32, 32, 3), 0.5, np.float32)
  frame[:, 10:12, 10:12] = np.float32(0.9)  # at the threshold
  frame[:, 20:22, 20:22] = 0.89
  _, marks, _ = _Echo(32, 0, dilate=dilate)._restore(frame)
  assert marks.sum() == side**2 and marks[0, 10 - dilate:12 + dilate, 10 - dilate:12 + dilate].all()


@pytest.mark.parametrize("psnr, error, better", [
    ([0.1, 2.0], [-0.2, -0.1], True), ([-0.1, 2.0], [-0.2, -0.1], None), ([0.1, 2.0], [-0.2, 0.1], None),
    ([-2.0, -0.1], [-0.2, -0.1], False), ([0.1, 2.0], [0.1, 0.2], False), (None, None, None)])
def test_better_only_where_the_paired_intervals_say_so(psnr, error, better):
  assert evaluator.verdict({"psnr_minus_baseline": psnr, "mae_inside_minus_baseline": error}) is better


def test_the_frame_as_it_is_and_every_other_way_are_named_as_baselines(monkeypatch):
  judge = object.__new__(evaluator.Evaluator)
  config = ml_collections.ConfigDict({"method": {"score": {"threshold": 0.5}}})
  ways = ("nothing", "network", "fill_network", "fill_harmonic", "telea")
  pixels = {"inside_pixels": 3, "outside_pixels": 5}
  vars(judge).update(config=config, marked=np.array([True, False]), _fill="harmonic",
                     overlap=np.array([[2.0, 4.0, 5.0], [0.0, 0.0, 3.0]]),
                     numbers={n: [{**pixels, "psnr": 10.0 * k}] * 2 for k, n in enumerate(ways)})
  monkeypatch.setattr(evaluator.measures, "summary", lambda rows, marked: {"psnr": rows[0]["psnr"]})
  judge._intervals = lambda: {"psnr_minus_baseline": [1, 2], "mae_inside_minus_baseline": [-2, -1]}
  found = judge.result()
  assert found["baselines"] == {"nothing": {"psnr": 0.0}, "telea": {"psnr": 40.0}}
  assert found["baseline"] == {"psnr": 0.0} and found["network"] == {"psnr": 10.0} and found["psnr"] == 30.0
  assert (found["fill_network"], found["fill_harmonic"]) == ({"psnr": 20.0}, {"psnr": 30.0})
  assert found["model_better"] is True and found["model_better_by"] == {"metric": "psnr", "difference": 30.0}
  assert (found["marks_precision"], found["marks_recall"], found["marks_dice"]) == (0.5, 0.25, 4 / 12)
  assert found["drawn_share"] == 8 / 16 and found["n_marked"] == 1
  json.dumps(found)  # numbers of Python alone: numpy's cannot be written


def test_tiles_fall_off_over_their_overlap_but_not_at_the_rim():
  rise = [0.25, 0.5, 0.75, 1]
  assert predictor._ramp(5, 8, 20, 3).tolist() == rise + rise[::-1]
  assert predictor._ramp(0, 8, 20, 3).tolist() == [1] * 4 + rise[::-1]
  assert predictor._ramp(12, 8, 20, 3).tolist() == rise + [1] * 4
  assert predictor._ramp(5, 8, 20, 0).tolist() == predictor._ramp(0, 8, 8, 3).tolist() == [1] * 8


def test_opencv_is_optional(monkeypatch):
  of = types.SimpleNamespace
  for module, there in ((None, False), (of(), False), (of(inpaint=1), True)):
    monkeypatch.setitem(sys.modules, "cv2", module)
    assert inpaint.opencv_available() is there


@pytest.mark.parametrize("masks", [True, False])
def test_a_row_of_predictions_tells_where_the_mask_is_and_how_much_was_marked(masks, tmp_path, monkeypatch):
  pixels = RNG.integers(0, 200, (40, 33, 3)).astype(np.uint8)
  pixels[5:8, 6:10] = 255
  (tmp_path / "in" / "p").mkdir(parents=True)
  Image.fromarray(pixels).save(tmp_path / "in" / "p" / "a.png")
  echo = _Echo(64, 16)
  echo.config.predict.update(masks=masks, compare=False, identifiers=False)
  seen, windows, read = [], [], predictor.frames.read
  echo.gate = types.SimpleNamespace(form=lambda _, form: seen.append(form), content=lambda *_: None,
                                    warn=lambda *_: None)
  monkeypatch.setattr(predictor.frames, "read", lambda path, window: (
      windows.append(window) or read(path, window)))
  (item,) = echo.find_inputs(tmp_path / "in")
  row = echo.predict_one(item, tmp_path / "out")
  assert (seen[0].dicom, seen[0].coloured, windows) == ((), 0.0, [(0, 0)])  # no DICOM, no window
  assert row == {"output": "p/a.png", "mask": "masks/p/a_mask.png" if masks else "", "frames": 1,
                 "height": 40, "width": 33, "channels": 3, "bits": 8, "tiles": 1, "marked_pixels": 12,
                 "marked_share": pytest.approx(12 / (40 * 33))}
  np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / row["output"])), pixels)
  written = tmp_path / "out" / "masks" / "p" / "a_mask.png"
  assert written.exists() == masks
  if masks:
    np.testing.assert_array_equal(np.asarray(Image.open(written)) > 0, (pixels == 255).all(-1))
