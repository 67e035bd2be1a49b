"""Every reader of an image (data sets in training and in predict, tasks, preparation) x every rule.

A reader that opened files by itself would fail here, or in `test_only_formats_open_images`.
"""

import ast
import functools
import pathlib
from unittest import mock

import ml_collections
import numpy as np
from PIL import Image
import pytest

from data_pipelines import dataset as datasets
from data_pipelines.datasets import camelyon, chest_xray, nih, own_folder, paired, segmentation
from data_pipelines.errors import UserError
from data_pipelines.formats import decode, images
from data_pipelines.modules import Module
from data_pipelines.prepare import pairs as prepare_pairs
from tests.image_files import dicom, tiff

ROOT = pathlib.Path(__file__).parents[3]
RNG = np.random.default_rng(6)
GREY = RNG.integers(30, 250, (64, 64)).astype(np.uint8)
DEEP = GREY.astype(np.uint16) * 257


# ------------------------------------------------------------------------------ the readers
def fields(module, **given):
  cfg = module.defaults()
  with cfg.unlocked(), cfg.ignore_type():
    cfg.update({k: v for k, v in given.items() if k in cfg})
  return cfg


def single(name):
  """predict of a data set: one file as scoring sees it."""
  module = datasets.module(name)
  cfg = fields(module, image_size=64)
  if name in ("nih", "camelyon"):
    cfg = fields(module, crop_size=64, resize=64, layout="folder")
  elif name == "own_folder":
    cfg = fields(module, image_size=(64, 64))
  elif name in ("paired", "annotations"):
    cfg = fields(module, channels=1)
  elif name == "slides":
    cfg = fields(module, crop_size=64, channels=1)
  return lambda path: module.read_example(path, cfg)


def foreign(path):
  """A data set of somebody else without a reader of its own."""
  return Module("theirs", object()).read_example(path, ml_collections.ConfigDict(), (32, 32, 1))


def copies(path, places):
  """The file again at other places of its folder, which then is a data set."""
  path = pathlib.Path(path)
  for place in places:
    target = path.parent / "set" / place / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes())
  return path.parent / "set"


def trained_segmentation(path):
  root = copies(path, ["a", "b", "c", "d"])
  Image.fromarray(GREY > 128).save(root / "mask.png")
  rows = [f"{x}/{path.name},mask.png,{s},{x}" for x, s in zip("abcd", ("train", "train", "val", "test"))]
  (root / "labels.csv").write_text("\n".join(["image,mask,split,group", *rows]))
  data = segmentation.build(fields(segmentation, dir=str(root), clean=1, noise="polygon:3",
                                   image_size=64), 0)
  return data.split("test").read_one(0)["image"]


def trained_one_class(module, path):
  root = copies(path, ["train/normal/p1", "test/normal/p2", "test/anomaly/p3"])
  given = dict(root=str(root), layout="folder", crop_size=64, resize=64, image_size=64)
  data = module.build(fields(module, **given), 0)
  shown = data.split("test").read_one(0)["image"]
  np.testing.assert_array_equal(data.fitting().read_one(0)["image"], shown)
  return shown


def trained_pairs(path):
  root = copies(path, [f"{k}/p{i}" for k in ("clean", "annotated") for i in range(4)])
  cfg = fields(paired, dir=str(root), channels=1, image_size=(32, 32), val_share=0.25, test_share=0.25)
  with mock.patch.object(paired.filecmp, "cmp", return_value=False):  # frames without annotations are refused
    data = paired.build(cfg, 0)
  example = data.split("train").read_one(0)
  np.testing.assert_array_equal(example["image"], example["clean"])
  return example["image"]


def trained_own_folder(path):
  root = copies(path, [f"normal/p{i}" for i in range(4)])
  data = own_folder.build(fields(own_folder, dir=str(root), image_size=(64, 64)), 0)
  return data.split("test").read_one(0)["image"]


def prepared_pairs(path):
  root = copies(path, ["clean"])
  return next(prepare_pairs._frames(str(root), 1, 0, (64, 64), (0, 0)))[1]


def restoration(path):
  frame = images.read(path)
  if len(frame.pixels) > 1 or frame.unsaid:  # which restoration takes
    raise UserError(f"{path}: {frame.unsaid or 'frames'}")
  return frame.unit()[0].mean(-1)


def brain_slice(path):
  """Scaled by a quantile, as brains are: the unit falls out."""
  values = images.read_values(path, 1)
  return values / np.quantile(values, 0.99)


READERS = {
    **{f"predict {n}": single(n) for n in (
        "segmentation", "nih", "camelyon", "natural", "paired", "chest_xray", "synthetic_textures",
        "synthetic_radiographs", "annotations", "own_folder", "slides")},
    "predict theirs": foreign, "predict restoration": restoration, "predict brain slice": brain_slice,
    "train segmentation": trained_segmentation, "train nih": functools.partial(trained_one_class, nih),
    "train chest_xray": functools.partial(trained_one_class, chest_xray),
    "train camelyon": functools.partial(trained_one_class, camelyon), "train paired": trained_pairs,
    "train own_folder": trained_own_folder,
    "prepare pairs": prepared_pairs}


# -------------------------------------------------------------------------------- the rules
def save(array, **options):
  return lambda path: Image.fromarray(array).save(path, **options)


def turned(path):
  image = Image.fromarray(np.rot90(GREY))
  exif = image.getexif()
  exif[0x0112] = 6
  image.save(path, exif=exif)


SAME = {
    "16 bit.png": save(DEEP), "16 bit.tif": save(DEEP),
    "tiles.tif": lambda p: tiff(p, DEEP, tile=16, order=">"),
    "big.tif": lambda p: tiff(p, DEEP, big=True),
    "white is zero.tif": lambda p: tiff(p, 65535 - DEEP, photometric=0),
    "int32.tif": save(DEEP.astype(np.int32)), "float.tif": save((GREY / 255).astype(np.float32)),
    "lossless.jp2": save(GREY, irreversible=False),
    "palette.png": lambda p: Image.fromarray(GREY).convert("P").save(p),
    "colour.png": save(np.dstack([GREY] * 3)),
    "colour16.tif": lambda p: tiff(p, np.dstack([DEEP] * 3)),
    "alpha.png": save(np.dstack([GREY, GREY, GREY, 255 - GREY])), "exif.png": turned,
    "grey.dcm": lambda p: dicom(p, GREY), "deep.dcm": lambda p: dicom(p, DEEP),
    "mono1.dcm": lambda p: dicom(p, 255 - GREY, "MONOCHROME1"),
    "window.dcm": lambda p: dicom(p, GREY.astype(np.int16) - 100, WindowCenter=28, WindowWidth=256)}
BRAIN_UNITS = {"window.dcm"}  # brain slices are read in the file's units: 0 is the background there


@pytest.mark.parametrize("reader, form", [
    (r, f) for r in READERS for f in SAME if r != "predict brain slice" or f not in BRAIN_UNITS])
def test_the_same_picture_gives_the_same_result(tmp_path, reader, form):
  for folder in ("one", "other"):
    (tmp_path / folder).mkdir()
  Image.fromarray(GREY).save(tmp_path / "one" / "grey.png")
  SAME[form](tmp_path / "other" / form)
  one, other = (READERS[reader](next((tmp_path / f).iterdir())) for f in ("one", "other"))
  np.testing.assert_allclose(other, one, atol=1e-5)


def test_a_photograph_with_previews_is_the_photograph(tmp_path):
  first = Image.fromarray(GREY)
  first.save(tmp_path / "plain.jpg", quality=95)
  first.save(tmp_path / "phone.jpg", format="MPO", save_all=True, quality=95,
             append_images=[Image.fromarray(255 - GREY)])
  for name in ("predict segmentation", "predict nih", "predict paired", "predict restoration"):
    np.testing.assert_array_equal(READERS[name](tmp_path / "phone.jpg"),
                                  READERS[name](tmp_path / "plain.jpg"))


def cut(path):
  Image.fromarray(GREY).save(path)
  path.write_bytes(path.read_bytes()[:-400])


def giant(path):
  Image.new("1", (2000, 1000)).save(path)


def flipped(path):
  Image.fromarray(GREY).save(path)
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(bytes(data))


REFUSED = {  # rule -> (writer, what the line says, whether brain slices, of any depth, refuse it)
    "stack.tif": (lambda p: tiff(p, None, pages=[GREY] * 5), "5 pages", True),
    "12 in 16.png": (save(GREY.astype(np.uint16) * 16), "10 to 14 bits", False),
    "float255.tif": (save(GREY.astype(np.float32)), "beyond 0 ... 1", False),
    "nan.tif": (save(np.full((64, 64), np.nan, np.float32)), "NaN", True),
    "negative.tif": (save(GREY.astype(np.int32) - 99), "beyond 0", False),
    "giant.png": (giant, "2000x1000 pixels", True), "cut.png": (cut, "cut.png", True),
    "flipped.png": (flipped, "checksum", True), "text.png": (
        lambda p: p.write_text("no image"), "not a readable image", True),
    "frames.dcm": (lambda p: dicom(p, np.stack([GREY] * 2), frames_count=2), "frames", True),
    "flat.dcm": (lambda p: dicom(p, GREY.astype(np.uint16) * 16), "names no window", False)}


@pytest.mark.parametrize("reader, rule", [
    (r, f) for r in READERS for f in REFUSED if r != "predict brain slice" or REFUSED[f][2]])
def test_what_cannot_be_read_rightly_is_refused_by_name(tmp_path, monkeypatch, reader, rule):
  write, says, _ = REFUSED[rule]
  monkeypatch.setattr(decode, "MAX_PIXELS", 1_000_000)
  path = tmp_path / rule
  write(path)
  with pytest.raises(UserError) as error:
    READERS[reader](path)
  text = str(error.value)
  assert rule in text and says in text and "\n" not in text


def test_every_data_set_of_files_is_in_the_table():
  """Who reads files declares config.data.window, and is tried above."""
  known = {n.partition(" ")[2] for n in READERS}
  for file in sorted((ROOT / "data_pipelines/datasets").glob("[a-z]*.py")):
    module = datasets.module(file.stem)
    if "window" in (module.defaults() or {}):
      assert file.stem in known, file.stem
    else:
      assert "formats import images" not in file.read_text(), f"{file.stem} needs the field window"


def test_only_formats_open_images():
  """Image.open, pydicom, decode_png and the like are in data_pipelines/formats alone."""
  wrong = []
  for folder in ("data_pipelines", "medae_jax", "configs"):
    for file in sorted((ROOT / folder).rglob("*.py")):
      if file.parent.name == "formats":
        continue
      tree = ast.parse(file.read_text())
      names = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
      names |= {a.name.partition(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import)
                for a in n.names}
      names |= {(n.module or "").partition(".")[0] for n in ast.walk(tree)
                if isinstance(n, ast.ImportFrom)}
      opens = any(isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)
                  and n.func.attr == "open" and isinstance(n.func.value, ast.Name)
                  and n.func.value.id == "Image" for n in ast.walk(tree))
      found = {"pydicom", "imageio", "cv2", "tifffile", "decode_png", "decode_jpeg", "decode_image",
               "imread"} & names
      if opens or found:
        wrong.append((file.relative_to(ROOT).as_posix(), opens, found))
  allowed = {"data_pipelines/marks/layers.py",        # a JPEG that it has just made in memory
             "medae_jax/tasks/restoration/inpaint.py",  # OpenCV's inpainting, no file
             "medae_jax/core/files.py",                 # pictures that this package has written
             # whole slides: one room reads and writes them
             *(f"data_pipelines/slides/{name}.py" for name in ("forms", "plan", "writer"))}
  assert not [w for w in wrong if w[0] not in allowed]


def test_a_side_that_the_network_leaves_open_is_that_of_the_file(tmp_path):
  Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "a.png")
  for shape, wanted in (((0, 0, 1), (20, 30, 1)), ((8, 0, 1), (8, 30, 1)), ((0, 8, 3), (20, 8, 3)),
                        ((8, 6, 1), (8, 6, 1))):
    assert Module("x", object()).read_example(tmp_path / "a.png", ml_collections.ConfigDict(),
                                              shape).shape == wanted
