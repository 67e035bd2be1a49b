"""Which images a run is measured on, and as what: by hand, without a file."""

import dataclasses

import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.core.trained_on import fit
from medae_jax.tasks import admit
from medae_jax.training import measure
from tests.unit.training.test_measure import Images, config


def grey(*values):
  return np.asarray(values, np.float32)[:, None, None, None] * np.ones((1, 4, 5, 1), np.float32)


def test_of_many_images_64_are_taken_from_the_first_to_the_last():
  found = measure.measure(config(), Images(grey(*np.arange(1, 201) / 256)), {})
  assert found.examples == 64 and (found.low, found.high) == (1 / 256, 200 / 256)
  places = np.unique(np.linspace(1, 200, 64).astype(int))
  np.testing.assert_allclose(np.mean(found.quantiles), np.mean(places) / 256, atol=1e-3)
  assert found.size == (4, 5)


def test_what_is_not_finite_is_left_out_and_of_nothing_there_is_no_record():
  images = grey(0.25, 0.5, 0.75)
  images[1, 0, 0] = np.nan
  assert measure.measure(config(), Images(images), {}).examples == 2
  images[:, 1] = np.inf
  assert measure.measure(config(), Images(images), {}) is None


@pytest.mark.parametrize("modalities, kind", [(("a", "b"), "volume"), (("a",), "image"), ((), "image"),
                                              (("a", "b", "c"), "image")])
def test_a_volume_has_a_channel_for_each_modality(modalities, kind):
  """Neighbouring slices are channels, too."""
  metas = [{"spacing": s} for s in ((1, 1, 2), (1, 1), (1, 1, 4), (1, 1, 9))]
  data = dict(modalities=modalities, orientation="LPS", placement="scan", field_mm=192.0)
  found = measure.measure(config(**data), Images(np.repeat(grey(0.1, 0.2, 0.3, 0.4), 2, -1), metas), {})
  volume = kind == "volume"
  assert (found.kind, found.modalities, found.channels) == (kind, modalities if volume else (), 2)
  assert (found.orientation, found.placement, found.field_mm) == (
      ("LPS", "scan", 192.0) if volume else ("", "", 0))
  assert found.spacing == ((1, 1, 4) if volume else ())


def test_slices_of_a_scan_are_compared_together_and_images_of_a_patient_one_by_one():
  of = lambda *metas: [len(unit) for unit in measure._units([np.zeros((2, 2, 1))] * len(metas), metas)]
  a, b = {"patient": "a", "slice": 3}, {"patient": "b", "slice": 3}
  assert of(a, b, a, b, a) == [3, 2] and of({"patient": "a"}, {"patient": "a"}) == [1, 1]
  assert of({"slice": 1}, {"slice": 1}) == [1, 1]  # nobody's


def test_twelve_files_are_looked_at_evenly_and_their_share_of_colour_counted(monkeypatch):
  seen = []
  monkeypatch.setattr(measure.images, "read_values", lambda path: seen.append(int(path)) or int(path))
  monkeypatch.setattr(measure.fit, "colour_share", lambda n: fit.COLOURED if n % 8 else fit.COLOURED / 2)
  monkeypatch.setattr(measure.dicom, "modality", lambda path: "CT" if int(path) % 4 else "MR")
  assert measure._of_files([str(i) for i in range(30)]) == (pytest.approx(9 / 12), ("CT", "MR"))
  assert seen == list(range(0, 24, 2))
  assert measure._of_files([]) == (None, ())


@pytest.mark.parametrize("error", [UserError("damaged"), FileNotFoundError("gone"), PermissionError("no")])
def test_a_file_that_cannot_be_read_ends_no_measuring(monkeypatch, error):
  """Training itself has its own words for it."""
  def read(path):
    if path == "b":
      raise error
    return np.zeros((2, 2, 3))
  monkeypatch.setattr(measure.images, "read_values", read)
  monkeypatch.setattr(measure.dicom, "modality", lambda path: "CT")
  assert measure._of_files(["a", "b", "c"]) == (0.0, ("CT",))


def test_files_of_one_picture_are_looked_at():
  metas = [{"path": p} for p in ("a.png", "b.dcm", "c.nii.gz", "")] + [{}]
  assert measure._paths(metas) == ["a.png", "b.dcm"]


def test_a_scan_of_background_alone_has_no_distance_to_the_others():
  images, metas = grey(0.2, 0.4, 0.7, 0.0), [{"patient": p, "slice": 0} for p in "abcd"]
  images[:, 0] = 0  # background, which intensities of volumes leave out
  of = lambda n: measure.measure(config(modalities=("x",)), Images(images[:n], metas[:n]), {})
  assert of(4).kind == "volume" and of(4).usual == of(3).usual > 0 and of(4).quantiles == of(3).quantiles


def test_one_negative_among_inputs_is_said_where_the_training_is_alike(caplog):
  """Of a set a negative was told by the others; one alone was scored without a word."""
  rng = np.random.default_rng(0)
  body = np.outer(np.sin(np.linspace(0, 3, 20)), np.linspace(0.2, 1, 24)).astype(np.float32)[None, :, :, None]
  alike = np.clip(body + rng.normal(0, 0.05, (20, 20, 24, 1)), 0, 1).astype(np.float32)
  found = measure.measure(config(), Images(alike[:16]), {})
  assert len(found.middle) == 256 and measure.measure(config(), Images(alike[:15]), {}).middle == ()
  mixed = np.where(np.arange(16)[:, None, None, None] % 2, alike[:16], alike[:16, ::-1, ::-1])
  mixed[3] = 1 - mixed[3]  # negatives in the training: nothing is known then
  assert measure.measure(config(), Images(mixed), {}).middle == ()
  gate, seen = admit.Gate(found, False), fit.Seen("image", 1)
  for image, negative in ((alike[18], False), (1 - alike[18], True), (2 * (1 - alike[19]) - 1, True),
                          (0 * alike[18], False), (1 - alike[18, :10], False)):  # the last is a tile
    gate.content("a", seen, image[None])
    assert ("black and white turned round" in gate.taken()) == negative
  gate.content("a", fit.Seen("volume"), 1 - alike[18:19])
  admit.Gate(dataclasses.replace(found, middle=()), False).content("a", seen, 1 - alike[18:19])
  assert "turned round" not in gate.taken() and caplog.text.count("turned round") == 2


def test_one_flat_image_among_those_of_the_training_is_said(caplog):
  images = np.random.default_rng(0).random((4, 4, 5, 1)).astype(np.float32)
  measure.measure(config(), Images(images), {})
  assert "one grey" not in caplog.text
  images[2] = 0
  measure.measure(config(), Images(images, [{"path": f"{i}.x"} for i in range(4)]), {})
  assert "1 of the 4 images of the training looked at are of one grey all over, the first 2.x" in caplog.text
