"""Arrays handed to Run.score: what is not prepared is refused, what is unusual is said."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.core import config as config_lib, needs
from medae_jax.core.errors import UserError
from medae_jax.core.needs import Need
from medae_jax.core.trained_on.record import LEVELS, TrainedOn
from medae_jax.tasks import given
from tests.unit import fake_run

NEEDS = {"noisy/image": Need(low=0, high=1), "mask": Need(low=5)}
OK = np.random.default_rng(0).uniform(0, 1, (6, 5, 3))


def trained_on(kind="image", **changed):
  quantiles = (tuple(np.linspace(0.1, 0.9, len(LEVELS))),) * 3
  found = dict(
      dataset="d", synthetic=False, variant="", kind=kind, size=(6, 5), channels=3, low=0.0, high=1.2,
      modalities=("a", "b", "c") if kind == "volume" else (), quantiles=quantiles, usual=0.1, background=0.0,
      coloured=1.0, dicom=(), orientation="", placement="", field_mm=0.0, spacing=(), examples=4)
  return TrainedOn(**{**found, **changed})


@pytest.mark.parametrize("image", [OK, OK.astype(np.float16), OK.tolist(), OK[None], list(OK[None]),
                                   OK[..., 0], OK * 1.00001, np.ma.masked_array(OK, OK > 2)])
def test_what_is_prepared_becomes_a_batch(image):
  for asked in (image, {"image": image, "sample": 3}):
    found, single = given.batch(asked, NEEDS)
    assert found["image"].dtype == np.float32 and found["image"].ndim == 4 and found.get("sample", 3) == 3
    assert single == (np.ndim(image) < 4)
    np.testing.assert_allclose(found["image"].ravel(), np.ravel(image), atol=1e-3)


@pytest.mark.parametrize("image, said", [
    ((255 * OK).astype(np.uint8), "holds uint8, as pixels of a file or a mask are"), (OK > 0.5, "holds bool"),
    ((255 * OK).astype(int), "holds int64"), (OK + 1j, "holds complex"), (OK.astype(object), "holds objects"),
    (["a.png", "b.png"], "holds text: give one file at a time"), (b"abc", "holds bytes"),
    (np.ma.masked_array(OK, OK > 0.9), "has masked pixels"), ([[1, 2], [3]], "is no array"),
    (255 * OK, r"from \S+ to 25\S+, the method needs \[B,H,W,C\] float32 in \[0, 1\]: an array is"),
    (2 * OK - 1, "holds values from -"), (np.where(OK > 0.9, np.nan, OK), "holds NaN or infinity in"),
    (np.where(OK > 0.9, np.inf, OK), "holds NaN or infinity"), (OK[None, None], "not "),
    (np.zeros(5), r"not \(5,\)"),
    (OK[:0], "holds no pixel"), (OK[None][:0], "holds no pixel"), ([], r"not \(0,\)"),
    (None, "no image to score"), ({}, "no image to score"), ({"pixels": OK}, r"among \['pixels'\]")])
def test_what_only_looks_like_an_image_is_refused(image, said):
  with pytest.raises(UserError, match=said):
    given.batch(image, NEEDS)


class _Gradients:
  """A tensor of PyTorch that a network has made: NumPy cannot have it."""

  def __array__(self, *_, **__):
    raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach()")


def test_what_does_not_become_an_array_is_refused():
  deleted = jnp.asarray(OK)
  deleted.delete()
  for value, said in ((_Gradients(), "Use tensor.detach"), (deleted, "deleted")):
    with pytest.raises(UserError, match=f"what is to be scored is no array \\(.*{said}"):
      given.batch({"image": value}, NEEDS)


def test_what_no_training_image_was_is_refused_or_said():
  image, told = OK[None].astype(np.float32), trained_on()
  assert given.warning(image, told, False) == given.warning(image, None, False) == ""
  for odd in (image[..., :1], image.transpose(0, 3, 1, 2)):  # a line about config.model.mean, or a traceback
    with pytest.raises(UserError, match=r"the array has [15] channel\(s\), .* images of the training have 3"):
      given.warning(odd, told, False)
  for flat, said in ((0 * image + 0.5, "1 of 1 images have one value"), (np.round(image), "have two values")):
    assert said in given.warning(flat, told, False)
  assert "alone" not in given.warning(0 * image, trained_on("volume"), False)  # slices above the head
  assert "intensities are far" in given.warning(0.1 * image, told, False)
  taller = np.concatenate([image, image], 1)
  said = given.warning(taller, told, False)
  assert "it has 12 rows and 5 columns, images of the training have 6 and 5" in said
  assert given.warning(taller, told, True) == ""  # whole frames
  for kind in ("image", "volume"):  # a unit without an upper end: the method cannot tell
    with pytest.raises(UserError, match=r"half of the image is above 1\d\d\S*, .* nothing above 1.2"):
      given.warning(255 * image, trained_on(kind), False)
  lesion = np.where(np.arange(5)[:, None] < 2, 40, image)  # bright in 40 % of the pixels
  assert "intensities" in given.warning(lesion, trained_on("volume"), False)


def test_the_range_of_a_stream_is_that_of_its_key():
  assert needs.of(NEEDS, "image").high == 1 and needs.of(NEEDS, "mask").low == 5
  assert needs.of({}, "image").low is None


def test_a_run_warns_and_gives_no_verdict_of_nan(run_of, caplog):
  found = run_of(lambda batch: {"score": batch["image"].mean((1, 2, 3))}).score(0.1 * OK)
  assert "intensities are far" in found.warning and "this array: its intensities" in caplog.text
  with pytest.raises(UserError, match="score is not finite"):
    run_of(lambda batch: {"score": np.array([np.nan])}).score(OK)


@pytest.mark.parametrize("threshold", ["0,5", "0.5", float("nan"), (0.5,)])
def test_a_threshold_of_the_call_is_a_number(run_of, threshold):
  """NaN marked nothing, without a word; "0,5" was a traceback."""
  run = run_of(lambda batch: {"score": batch["image"].mean((1, 2, 3)), "map": batch["image"][..., :1]})
  with pytest.raises(UserError, match="config.predict.threshold=.*: it must be"):
    run.score(OK, **{"predict.threshold": threshold})
  assert run.score(OK, **{"predict.threshold": np.float32(0.5)}).mask.any()
  with pytest.raises(UserError, match="threshold=True is of type bool"):  # it was 1.0
    run.score(OK, **{"predict.threshold": True})

@pytest.fixture
def run_of(monkeypatch, tmp_path):
  from medae_jax import api
  from medae_jax.core.trained_on import record
  monkeypatch.setattr(record, "read", lambda workdir: trained_on())

  def make(score):
    opened = types.SimpleNamespace(config=fake_run.config().lock(), calibration=None, score=score,
                                   image_shape=None, method=types.SimpleNamespace(needs=NEEDS))
    opened.override = lambda changed: types.SimpleNamespace(**{
        **vars(opened), "config": config_lib.override(opened.config, changed)})
    return api.Run(tmp_path, opened, {})
  return make
