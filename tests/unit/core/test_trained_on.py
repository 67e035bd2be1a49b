"""What a run was trained on: the record of it, and what does not fit it."""

import dataclasses
import json
import re

import numpy as np
import pytest

from medae_jax.core.trained_on import fit, record

RNG = np.random.default_rng(0)


def brains(**more):
  """Slices of three modalities with half of background."""
  row = tuple(np.linspace(0.1, 0.9, len(record.LEVELS)).tolist())
  return record.TrainedOn(**{**dict(
      dataset="brats", synthetic=False, variant="", kind="volume", modalities=("flair", "t1", "t2"),
      size=(16, 16), channels=3, low=0.0, high=1.0, quantiles=(row,) * 3, usual=0.05, background=0.5,
      coloured=None, dicom=(), orientation="LPS", placement="anatomy", field_mm=192.0,
      spacing=(1.0, 1.0, 3.0), examples=8), **more})


def rays(**more):
  """Grey images of one channel."""
  return brains(**{**dict(kind="image", modalities=(), channels=1, quantiles=brains().quantiles[:1],
                          background=0.0, coloured=0.0, dicom=("DX",), spacing=()), **more})


@pytest.mark.parametrize("trained,seen,words", [
    (brains(), fit.Seen("volume"), ""),
    (brains(), fit.Seen("volume", dicom=("MR",)), ""),
    (brains(), fit.Seen("volume", dicom=("CT",)), "header says CT"),
    (brains(modalities=("ct", "pet", "x")), fit.Seen("volume", dicom=("CT",)), ""),
    (brains(modalities=("ct", "pet", "x")), fit.Seen("volume", dicom=("DX",)), "header says DX"),
    (brains(), fit.Seen("image", 1), r"grey picture, and the model reads 3 modalities \(flair, t1, t2\)"),
    (brains(), fit.Seen("image", 3), "grey picture"),
    (brains(), fit.Seen("image", 3, 0.4), "colour picture, and the model reads 3 modalities"),
    (brains(), fit.Seen("image", 3, 0.0, apart=True), ""),  # a grey file for each modality
    (brains(), fit.Seen("image", 9, 0.4, apart=True), "colour picture"),
    (brains(), fit.Seen("image"), ""),                     # unreadable: its reader says why
    (brains(modalities=("flair",), channels=1), fit.Seen("image", 3, 0.4), "colour picture.*flair"),
    (brains(modalities=("flair",), channels=1), fit.Seen("image", 1), ""),
    (rays(), fit.Seen("image", 1, dicom=("CR",)), ""),     # the same kind under its older word
    (rays(), fit.Seen("image", 1, dicom=("MR",)), "header says MR"),
    (rays(dicom=()), fit.Seen("image", 1, dicom=("MR",)), ""),
    (rays(), fit.Seen("image", 1, dicom=("OT",)), ""),
    (rays(), fit.Seen("volume"), "is a volume"),
    (rays(), fit.Seen("image", 3, 0.5), "colour picture.*all grey"),
    (rays(coloured=None), fit.Seen("image", 3, 0.5), ""),  # nobody saw how the training files look
])
def test_forms_that_fit_and_that_do_not(trained, seen, words):
  found = fit.of_form(trained, seen)
  if not words:
    assert found == ""
  else:
    assert re.search(words, found) and "\n" not in found, found


def test_a_picture_without_background_is_no_slice():
  full, half = np.full((1, 8, 8, 3), 0.5), np.full((1, 8, 8, 3), 0.5)
  half[:, :4] = 0
  assert "0% of empty background" in fit.of_picture(brains(), full)
  assert fit.of_picture(brains(), half) == "" and fit.of_picture(rays(), full[..., :1]) == ""
  assert fit.of_picture(brains(background=0.05), full) == ""  # the training was cut to the brain


def test_background_is_a_fiftieth_of_the_unit_in_every_channel():
  example = np.array([[0.019, 0.019], [0.02, 0.0], [0.021, 0.0], [0.5, 0.4]])
  assert fit.background(example) == 0.5
  np.testing.assert_allclose(fit.quantiles(example, "volume")[0, [0, -1]], [0.021, 0.5], atol=0.01)
  assert fit.quantiles(example, "image")[0, 0] < 0.0195 and not fit.quantiles(example[:2], "volume").any()


def test_far_intensities_and_other_scales_are_warned_of():
  like = RNG.uniform(0.09, 0.91, (4, 16, 16, 3))
  near = fit.Seen("volume", spacing=(1.2, 0.9, 3.0))
  assert fit.warning(brains(), near, like) == ""
  assert "far from those of the training (0.4" in fit.warning(brains(), near, like + 0.35)
  assert fit.warning(brains(usual=0.3), near, like + 0.35) == ""  # the training itself scatters so
  like[..., :8, :, :] = 0                                         # background does not count
  assert fit.warning(brains(), near, like) == ""
  wide = fit.Seen("volume", spacing=(3.0, 3.0, 3.0))
  assert fit.warning(brains(), wide, like) == ""                  # placed by millimetres
  assert "3 x 3 mm in a slice, those of the training 1 x 1 mm" in fit.warning(
      brains(placement="scan"), wide, like)
  grey = fit.warning(rays(channels=3, coloured=1.0), fit.Seen("image", 1), like)
  assert grey == "it is grey, and every picture of the training was in colour"


def test_the_limits_of_what_is_let_through_lie_where_they_are_said_to():
  picture = lambda empty: np.where(np.arange(100) < empty, 0, 0.5).reshape(1, 10, 10, 1).repeat(3, -1)
  assert fit.of_picture(brains(), picture(15)) == "" != fit.of_picture(brains(), picture(14))  # 0.3 of a half
  of = lambda share: fit.of_form(rays(), fit.Seen("image", 3, share))
  assert of(0.099) == "" != of(0.1)
  like = RNG.uniform(0.1, 0.9, (4, 16, 16, 3))
  here = fit.Seen("volume", spacing=(1.0, 1.0, 3.0))
  far = lambda shift, usual: fit.warning(brains(usual=usual), here, like + 0.8 * shift) != ""
  assert not far(0.2, 0.0) and far(0.3, 0.0)      # a quarter of the spread is no news
  assert not far(0.35, 0.2) and far(0.45, 0.2)    # nor twice what the training itself has
  wide = lambda mm: fit.warning(brains(placement="scan"), fit.Seen("volume", spacing=(1.0, mm, 9.0)), like)
  assert wide(2.0) == wide(0.5) == "" and wide(2.1) and wide(0.45)


def test_a_pixel_that_one_channel_sees_is_no_background_and_one_of_other_colours_is_coloured():
  example = np.zeros((4, 1, 2))
  example[:2, 0, 0], example[2, 0, 1] = 0.5, 0.25
  found = fit.quantiles(example, "volume")
  assert found[0, 0] < 0.1 and found[1, -1] > 0.2
  assert fit.background(example) == 0.25
  picture = np.zeros((1, 4, 3))
  picture[0, :, 0] = [0, 5, 7, 100]   # 6 of 100 are the limit
  assert fit.colour_share(picture) == 0.5


def test_distance_is_a_wasserstein_distance_by_hand():
  usual = np.linspace(0, 2, 5)[None]
  assert fit.distance(usual + 0.5, usual) == pytest.approx(0.25)
  two = np.concatenate([usual, usual])
  assert fit.distance(two + [[0.1], [-0.8]], two) == pytest.approx(0.4)  # the worst channel


def test_share_of_colour():
  picture = np.zeros((10, 10, 3))
  picture[:3] = [200, 100, 50]
  assert fit.colour_share(picture) == 0.3
  picture[:] = np.arange(10)[:, None, None] * 20 + [0, 1, 2]   # noise of a compression
  assert fit.colour_share(picture) == 0 and fit.colour_share(picture[..., :1]) == 0


def test_the_record_is_read_as_it_was_written(tmp_path):
  assert record.read(tmp_path) is None
  for trained in (brains(), rays(coloured=None), rays(middle=(0.5,) * 256),
                  brains(synthetic=True, variant="demo")):
    record.write(tmp_path, trained)
    assert record.read(tmp_path) == trained
  assert trained.mark == "synthetic, demo" and brains().mark == ""
  content = json.loads((tmp_path / record.FILE).read_text())
  del content["aspect"], content["intents"], content["middle"]  # a run of before it
  (tmp_path / record.FILE).write_text(json.dumps(content))
  assert record.read(tmp_path) == trained


@pytest.mark.parametrize("change,field", [
    (lambda d: d.pop("usual"), "no usual"), (lambda d: d.update(kind=["x"]), "kind is not"),
    (lambda d: d.update(kind="tensor"), "kind is not"), (lambda d: d.update(channels=2), "channels=2"),
    (lambda d: d["quantiles"].pop(), "channels=3"), (lambda d: d.update(size=[1]), "size is not"),
    (lambda d: d["quantiles"][0].reverse(), "quantiles is not"), (lambda d: d.update(low=None), "low is not"),
    (lambda d: d.update(spacing=[1, 0, 1]), "spacing is not"),
    (lambda d: d.update(dicom=[3]), "dicom is not"), (lambda d: d.update(middle=[1] * 9), "middle is not"),
    (lambda d: d.update(coloured="no"), "coloured is not"),
    (lambda d: d.update(synthetic=1), "synthetic is")])
def test_a_damaged_record_is_one_line_that_names_file_and_field(tmp_path, change, field):
  content = json.loads(json.dumps(dataclasses.asdict(brains())))
  change(content)
  (tmp_path / record.FILE).write_text(json.dumps(content))
  with pytest.raises(ValueError, match=f"trained_on.json is damaged .*{field}.*delete it") as e:
    record.read(tmp_path)
  assert "\n" not in str(e.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00", '{"kind": '])
def test_a_record_that_is_no_object(tmp_path, text):
  (tmp_path / record.FILE).write_text(text)
  with pytest.raises(ValueError, match="trained_on.json is damaged"):
    record.read(tmp_path)


@pytest.mark.parametrize("size, said", [
    ((3, 5), True), ((4, 4), True), ((4, 5), False), ((16, 2), False), ((), False)])
def test_a_picture_that_is_enlarged_four_times_is_said(size, said):
  """Pictures of 3 x 5 pixels were scored without a word."""
  like = np.random.default_rng(0).uniform(0, 1, (1, 16, 18 if size == (4, 5) else 20, 1))
  line = fit.warning(rays(), fit.Seen("image", 1, size=size), like)
  assert ("made up by enlarging" in line) == said
