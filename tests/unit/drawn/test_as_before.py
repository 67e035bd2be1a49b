"""Every drawn data set gives the pictures it gave: results on SYNTHETIC data compare across versions.

as_before.json: a name, and sums of the array over fixed weights of size 1, so that a change of 0.001 in each
pixel shows. The pictures behind the numbers were looked at; who changes a generator on purpose looks again
and says so in CHANGELOG.md: python -m tests.unit.drawn.test_as_before
"""

import json
import pathlib

import numpy as np
import pytest

from data_pipelines.brains import drawn_lesions, phantom as brains
from data_pipelines.chest import phantom as chest
from data_pipelines.datasets import annotations, synthetic_textures
from data_pipelines.marks import catalogue, reference
from data_pipelines.masks import label_noise, synthetic_lesions
from data_pipelines.pairs import ultrasound

TABLE = pathlib.Path(__file__).with_name("as_before.json")
BEFORE = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
NOISE = ("polygon:5", "box:0.2", "whole", "dilate:2", "erode:2", "shift:0.3", "jitter:0.2", "threshold",
         "polygon:3*0.5+box*0.5")


def sums(array):
  """[4] of any array: its mean, and its sums over three waves of weights, in units of sqrt(size)."""
  x = np.asarray(array, np.float64).ravel()
  waves = [np.cos(k * np.arange(x.size) ** 1.2) for k in (1.0, 1.7, 2.3)]
  return [x.mean(), *(x @ w / np.sqrt(x.size) for w in waves)]


def drawn_brains():
  """Three patients, one without a tumour; the outline holds the same labels (tests/unit/data)."""
  for seed, lesions in ((0, True), (1, True), (2, True), (3, False)):
    volumes, seg = brains.brain(np.random.default_rng(seed), (24, 22, 10), lesions=lesions)
    for name, volume in {**volumes, "seg": seg}.items():
      yield f"{seed} {name}", volume


def drawn_radiographs():
  """Each finding and none, of two people."""
  for seed in range(2):
    for finding in ("", *chest.FINDINGS):
      found = chest.radiograph(np.random.default_rng(10 * seed + 3), 32, finding)
      for part in ("image", "lungs", "mask"):
        yield f"{seed} {finding or 'normal'} {part}", found[part]


def drawn_textures():
  """Each kind of anomaly, grey and in colour."""
  for kind in (None, *synthetic_textures.KINDS):
    for channels in (1, 3):
      image, mask, _ = synthetic_textures._images(np.random.default_rng(5), 1, 24, channels, (kind,))
      yield from ((f"{kind} {channels} image", image), (f"{kind} {channels} mask", mask))


def drawn_frames():
  """Ultrasound frames of every region of the beam."""
  for seed in range(6):
    yield f"{seed}", ultrasound.frame(np.random.default_rng(seed), (40, 48))


def drawn_skin():
  """Lesions of the skin, and each kind of label noise on one of them."""
  for i in range(5):
    image, mask = synthetic_lesions.draw(1, "train", i)
    yield from ((f"{i} image", image / 255), (f"{i} mask", mask))
  for text in NOISE:
    yield text, label_noise.apply(mask, text, 3, "image 4", image)


def drawn_into_slices():
  """Lesions in a grey disc."""
  y, x = np.mgrid[:40, :36]
  disc = np.float32(0.5) * (np.hypot(y - 20, x - 18) < 15)
  for seed in range(3):
    found = drawn_lesions.draw(np.random.default_rng(seed), np.stack([disc, disc], -1), ((0.2, 0.4), None))
    yield from ((f"{seed} image", found[0]), (f"{seed} lesion", found[1]))


def drawn_marks():
  """Of every kind and of the reference: where each layer lies, how large, how much paint, which colour."""
  frame = ultrasound.frame(np.random.default_rng(1), (96, 128))[..., None]
  options = {**annotations.defaults().marks.to_dict(), "unmarked": 0.0, "count": (2, 2)}
  drawn = {kind: lambda rng, kind=kind: catalogue.draw(rng, frame, {**options, "kinds": (kind,)})
           for kind in catalogue.KINDS}
  drawn["reference"] = lambda rng: reference.draw(rng, frame)
  for kind, draw in drawn.items():
    seeds = range(12 if kind == "reference" else 2)  # its colours are drawn for a frame as a whole
    layers = [layer for seed in seeds for mark in draw(np.random.default_rng(seed)) for layer in mark.layers]
    yield kind, [[a.top, a.left, *a.alpha.shape, a.alpha.sum(), 100 * np.mean(a.colour)] for a in layers]


DRAWN = {f.__name__.removeprefix("drawn_"): f for f in (
    drawn_brains, drawn_radiographs, drawn_textures, drawn_frames, drawn_skin, drawn_into_slices)}


@pytest.mark.parametrize("what", DRAWN)
def test_pictures_are_those_of_before(what):
  ours = {name: sums(array) for name, array in DRAWN[what]()}
  assert ours.keys() == BEFORE[what].keys()
  for name, wanted in BEFORE[what].items():
    np.testing.assert_allclose(ours[name], wanted, atol=2e-3, rtol=0, err_msg=name)


def test_marks_are_those_of_before():
  ours = dict(drawn_marks())
  assert ours.keys() == BEFORE["marks"].keys()
  for name, wanted in BEFORE["marks"].items():
    np.testing.assert_allclose(ours[name], wanted, atol=1.0, rtol=0.01, err_msg=name)


def main():
  """Writes the table afresh."""
  table = {what: {name: [round(x, 5) for x in sums(array)] for name, array in draw()}
           for what, draw in DRAWN.items()}
  table["marks"] = {name: np.round(np.array(rows, np.float64), 2).tolist() for name, rows in drawn_marks()}
  line = lambda name, numbers: f" {json.dumps(name)}: {json.dumps(numbers)}"
  rows = [f"{json.dumps(what)}: {{\n" + ",\n".join(map(line, part, part.values())) + "}"
          for what, part in table.items()]
  TABLE.write_text("{" + ",\n".join(rows) + "}\n", encoding="utf-8")


if __name__ == "__main__":
  main()
