"""Annotation removal from files to files: train on pairs, evaluate, predict; untouched = identical."""

import csv
import json

import numpy as np
from PIL import Image
import pydicom
import pytest

from data_pipelines.datasets import annotations
from data_pipelines.formats import images
from data_pipelines.intake import find
from data_pipelines.pairs import ultrasound
from medae_jax import evaluate, predict, train
from tests.contract import cases
from tests.image_files import dicom

SIZE = (40, 48)
pytestmark = pytest.mark.slow


def write(path, unit):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.round(unit * 255).astype(np.uint8)
  Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A short run on pairs written by the synthesiser: (workdir, data folder)."""
  folder, options = tmp_path_factory.mktemp("pairs"), annotations.defaults().marks
  for i in range(10):
    rng = np.random.default_rng(i)
    clean = np.repeat(ultrasound.frame(rng, SIZE)[..., None], 3, -1)
    annotated, clean, mask = annotations.annotate(clean, rng, options)
    for name, image in (("annotated", annotated), ("clean", clean), ("mask", mask)):
      write(folder / name / f"p{i}_1.png", image)
  c = cases.load_config(cases.ROOT / "configs" / "annotation_removal.py", "pairs,smoke")
  with c.unlocked():
    c.model.update(network="autoencoder_skip", full_skip=True)
    c.data.update(dir=str(folder), val_share=0.2, test_share=0.2)
    c.train.update(steps=30, eval_every=30, save_every=30)
    c.eval.bootstrap = 20
  workdir = tmp_path_factory.mktemp("run")
  train.train(c.lock(), str(workdir))
  return workdir, folder


def test_evaluate_writes_numbers_beside_both_baselines(run):
  workdir, _ = run
  results = evaluate.evaluate(workdir)
  found = json.loads((workdir / "evaluation" / "test.json").read_text())
  assert found["n_images"] == 2 and found["synthetic"] is False
  for key in ("psnr", "ssim", "mae_inside", "mae_outside", "removed_share",
              "untouched_changed_share", "marks_recall", "model_better"):
    assert key in found
  nothing, harmonic = found["baselines"]["nothing"], found["baselines"]["inpaint_harmonic"]
  assert nothing["mae_outside"] == harmonic["mae_outside"] == 0
  assert harmonic["mae_inside"] < nothing["mae_inside"]
  assert found["mae_outside"] <= found["network"]["mae_outside"]
  calibration = json.loads((workdir / "calibration.json").read_text())
  assert calibration["score"]["threshold"] == found["threshold"] == results["val"]["threshold"]
  with open(workdir / "evaluation" / "test.csv", newline="") as f:
    assert len(list(csv.DictReader(f))) == 2
  if found["n_marked"]:
    assert (workdir / "evaluation" / "test_panel.png").is_file()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
  """One file of each kind, in two folders."""
  folder = tmp_path_factory.mktemp("inputs")
  rng = np.random.default_rng(5)
  grey = ultrasound.frame(rng, SIZE)
  colour, _, _ = annotations.annotate(np.repeat(grey[..., None], 3, -1), rng,
                                      {**annotations.defaults().marks.to_dict(), "unmarked": 0.0})
  write(folder / "colour.png", colour)
  write(folder / "sub" / "grey.bmp", grey[..., None])
  write(folder / "large.tif", np.tile(colour, (3, 2, 1)))
  write(folder / "photo.jpg", colour)
  write(folder / "photo.png", colour)
  Image.fromarray((grey * 65535).astype(np.uint16)).save(folder / "deep.png")
  dicom(folder / "scan.dcm", (grey * 4095).astype(np.uint16), WindowCenter=2048, WindowWidth=4096)
  dicom(folder / "clip.dcm", np.round(np.stack([colour[..., 0]] * 2) * 255).astype(np.uint8),
        frames_count=2)
  return folder


def test_predict_keeps_size_depth_colour_and_every_untouched_bit(run, inputs, tmp_path):
  workdir, _ = run
  before = {p: p.read_bytes() for p in find.find(inputs, ("image", "dicom")).files}
  rows = predict.predict(workdir, {"predict.input": str(inputs), "predict.output": str(tmp_path),
                                   "method.score.threshold": 0.2})
  assert {r["input"]: r["output"] for r in rows} == {
      "clip.dcm": "clip.dcm", "colour.png": "colour.png", "deep.png": "deep.png",
      "large.tif": "large.tif", "photo.jpg": "photo_jpg.png", "photo.png": "photo_png.png",
      "scan.dcm": "scan.dcm", "sub/grey.bmp": "sub/grey.bmp"}
  changed = 0
  for row in rows:
    source, result = images.read(inputs / row["input"]), images.read(tmp_path / row["output"])
    assert result.pixels.shape == source.pixels.shape and result.pixels.dtype == source.pixels.dtype
    name = row["output"].rsplit(".", 1)[0]
    for n in range(len(source.pixels)):
      file = name if len(source.pixels) == 1 else f"{name}_{n:03d}"
      mask = np.asarray(Image.open(tmp_path / "masks" / f"{file}_mask.png")) > 0
      differs = np.any(source.pixels[n] != result.pixels[n], -1)
      assert not np.any(differs & ~mask), row["input"]
      assert (tmp_path / "compare" / f"{file}.png").is_file()
      changed += differs.sum()
  assert changed > 0, "nothing was restored anywhere: the test would pass with a copy"
  assert {r["input"]: r["tiles"] for r in rows}["large.tif"] > 1
  assert before == {p: p.read_bytes() for p in find.find(inputs, ("image", "dicom")).files}
  old, new = pydicom.dcmread(inputs / "scan.dcm"), pydicom.dcmread(tmp_path / "scan.dcm")
  assert new.PatientName == old.PatientName
  same = np.array_equal(new.pixel_array, old.pixel_array)
  assert (new.SOPInstanceUID == old.SOPInstanceUID) == same  # other pixels, another object


def test_predict_never_writes_into_the_inputs(run, inputs):
  with pytest.raises(ValueError, match="nothing is ever written into the input folder"):
    predict.predict(run[0], {"predict.input": str(inputs),
                             "predict.output": str(inputs / "results")})
  assert not (inputs / "results").exists()


def test_bad_inputs_are_named_and_the_rest_goes_on(run, tmp_path):
  source = tmp_path / "in"
  write(source / "good.png", np.full((*SIZE, 1), 0.5))
  (source / "bad.png").write_text("no image")
  with pytest.raises(ValueError, match="1 of 2 inputs failed.*bad.png"):
    predict.predict(run[0], {"predict.input": str(source), "predict.output": str(tmp_path / "out")})
  assert (tmp_path / "out" / "good.png").is_file()
  (tmp_path / "empty").mkdir()
  with pytest.raises(ValueError, match="holds no image"):
    predict.predict(run[0], {"predict.input": str(tmp_path / "empty")})


def test_evaluation_and_prediction_mark_the_same_pixels(run, tmp_path):
  """The composite that was measured is the one that is written."""
  workdir, folder = run
  evaluate.evaluate(workdir)
  with open(workdir / "evaluation" / "test.csv", newline="") as f:
    counted = {r["id"]: int(r["found_pixels"]) for r in csv.DictReader(f)}
  rows = predict.predict(workdir, {"predict.input": str(folder / "annotated"),
                                   "predict.output": str(tmp_path), "predict.tile": 128})
  found = {r["input"]: r["marked_pixels"] for r in rows}
  # frames of 40x48 are padded to a multiple of 32 before prediction, to one of 8 in evaluation:
  # the poolings see other values beyond the rim
  for name, count in counted.items():
    assert abs(found[name] - count) <= 0.05 * SIZE[0] * SIZE[1], name
