"""The contract of data sets, over every module in data_pipelines/datasets, without their real files."""

import ast
import functools
import io
import pathlib
import tokenize

import ml_collections
import numpy as np
from PIL import Image
import pytest

from data_pipelines import dataset as datasets, fields, stream
from data_pipelines.errors import UserError
from tests import blocked, slide_files, tiny_data

NAMES = datasets.dataset_names()
ROOT = pathlib.Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(7)


# ---------------------------------------------------------------------------------- tiny data sets
def _image(path, shape):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(RNG.integers(0, 256, shape, np.uint8)).save(path)


def _labelled(folder, shape):
  """A folder with labels.csv: 8 training images, 4 + 4 of val and of test."""
  rows = ["file,split,label,group"]
  for split, side, n in (("train", "normal", 8), ("val", "normal", 4), ("val", "sick", 4),
                         ("test", "normal", 4), ("test", "sick", 4)):
    for i in range(n):
      name = f"{split}_{side}_{i}.png"
      _image(folder / name, shape)
      rows.append(f"{name},{split},{side},{split}{side}{i}")
  (folder / "labels.csv").write_text("\n".join(rows) + "\n")
  return str(folder)


def _own(folder):
  for i in range(9):
    _image(folder / "normal" / f"p{i}_0.png", (50, 50))
  _image(folder / "abnormal" / "p9_0.png", (50, 50))
  return str(folder)


def _pairs(folder, names=("annotated", "clean")):
  for i in range(8):
    for kind in names:
      _image(folder / kind / f"p{i}_0.png", (30, 40, 3))
  return str(folder)


def _brats(folder):
  from data_pipelines.datasets import synthetic
  synthetic.write_nifti(folder / "scans", 6, shape=(24, 24, 6), splits=(3, 2, 1))
  return dict(dir=str(folder / "scans"), prepared_dir=str(folder / "prepared"), image_size=(16, 16),
              workers=1, noise_res=2)


def _slides(folder):
  folder.mkdir(parents=True, exist_ok=True)
  rows = ["file,split,label,group"]
  for split, label in (("train", "normal"), ("val", "normal"), ("test", "normal"), ("test", "tumour")):
    name = f"{split}_{label}.tif"
    slide_files.write_slide(folder / name, slide_files.tissue(160, 240), downsamples=(1, 2))
    rows.append(f"{name},{split},{label},{name}")
  (folder / "labels.csv").write_text("\n".join(rows) + "\n")
  return str(folder)


def _npz(folder):
  x, y = RNG.integers(0, 256, (200, 32, 32, 3), np.uint8), np.arange(200) % 10
  np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
  return dict(root=str(folder), val_fraction=0.3, val_anomalies=5)


# name: function of an empty folder -> fields of config.data. A new data set needs a line here.
TINY = {
    "annotations": lambda f: dict(dir=_pairs(f, ("clean",)), image_size=16, val_share=0.3),
    "brats": _brats,
    "camelyon": lambda f: dict(layout="folder", root=_labelled(f, (40, 40, 3)), crop_size=32,
                               random_crop=True, random_flip=True),
    "chest_xray": lambda f: dict(root=_labelled(f, (50, 40)), image_size=16),
    "natural": _npz,
    "nih": lambda f: dict(layout="folder", root=_labelled(f, (50, 50)), crop_size=40, resize=16,
                          equalize_hist=True),
    "own_folder": lambda f: dict(dir=_own(f), image_size=(16, 16), noise_res=2),
    "paired": lambda f: dict(dir=_pairs(f), image_size=16, val_share=0.3),
    "segmentation": lambda f: dict(layout="synthetic", synthetic_counts=(12, 4, 4), clean=4,
                                   image_size=24, crop=4, noise="polygon:3"),
    "slides": lambda f: dict(root=_slides(f), crop_size=16, magnification=20, jitter=8, tissue_dir=str(f)),
    "synthetic": lambda f: dict(image_size=(16, 16), n_patients=(3, 2, 2), n_slices=3, noise_res=2),
    "synthetic_radiographs": lambda f: dict(image_size=16, n_train=8, n_val=8, n_test=8),
    "synthetic_textures": lambda f: dict(image_size=16, n_train=8, n_val=8, n_test=8, channels=3),
}


@pytest.fixture(params=NAMES)
def opened(request, tmp_path):
  """(module, its resolved config, the opened data set)."""
  module = datasets.module(request.param)
  cfg = fields.changed(module.defaults(), **TINY[request.param](tmp_path))
  return module, module.resolve(cfg), module.build(cfg, 0)


def _first(source):
  """The first example of a source, ops of the stream applied where it has some."""
  if not source.ragged and not source.example_ops and not source.batch_ops:
    return source.read_one(0)
  holder = type("Holder", (datasets.DataSet,), {"train": lambda self: source})()
  batch = next(stream.train_stream(holder, {}, batch_size=2, first_step=0, seed=0))
  return {k: v[0] for k, v in batch.items()}


def _inside(value, spec):
  assert spec.low is None or value.min() >= spec.low
  assert spec.high is None or value.max() <= spec.high


# ----------------------------------------------------------------------------------------- contract
def test_every_data_set_is_tried_here():
  assert set(NAMES) == set(TINY)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_a_documented_complete_config(name):
  module = datasets.module(name)
  defaults = module.defaults()
  assert isinstance(defaults, ml_collections.ConfigDict) and defaults.name == name
  assert defaults.resident is False
  assert module.defaults() is not defaults  # fresh each time: who changes one changes no other
  documented = _documented()
  flat = dict(_walk(defaults))
  assert not [field for field in flat if field not in documented]
  assert module.resolve(defaults).to_dict() == module.defaults().to_dict()


def _walk(config):
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      yield from _walk(value)
    else:
      yield key, value


@functools.cache
def _documented():
  """Fields that a function which makes a config of fields sets in a statement with a comment."""
  found = set()
  for path in (ROOT / "data_pipelines").rglob("*.py"):
    text = path.read_text(encoding="utf-8")
    commented = {t.start[0] for t in tokenize.generate_tokens(io.StringIO(text).readline)
                 if t.type == tokenize.COMMENT}
    for function in ast.parse(text).body:
      if isinstance(function, ast.FunctionDef) and function.name in (
          "common", "defaults", "protocol", "files"):
        for node in function.body:
          if isinstance(node, ast.Assign) and commented & {*range(node.lineno, node.end_lineno + 1)}:
            found |= {t.attr for target in node.targets for t in ast.walk(target)
                      if isinstance(t, ast.Attribute)}
  return found


@pytest.mark.parametrize("name", NAMES)
def test_misspelt_fields_are_refused_in_one_line(name):
  module = datasets.module(name)
  for field in module.defaults():
    if field == "name":
      continue
    wrong = field[0] + field
    with pytest.raises(UserError) as error:
      datasets.open_dataset({"name": name, wrong: 1}, 0)
    assert str(error.value) == (f"config.data.{wrong} is not a field of the data set {name}; "
                                f"did you mean {field}?")


@pytest.mark.parametrize("name", NAMES)
def test_values_of_another_kind_are_refused_in_one_line(name):
  module = datasets.module(name)
  for field, default in module.defaults().items():
    if default is not None and not isinstance(default, str):
      with pytest.raises(UserError, match=rf"^config\.data\.{field}.*[^\n]*$"):
        module.resolve({field: "nonsense"})


def test_spec_says_what_is_delivered(opened):
  module, cfg, data = opened
  spec = module.spec(cfg)
  train = data.train()
  for source in train.values() if isinstance(train, dict) else (train,):
    image = _first(source)["image"]
    assert image.shape == spec.shape and image.dtype == np.float32
    _inside(image, spec)
  for split in data.splits:
    image = data.split(split).read_one(0)["image"]
    _inside(image, spec)
    assert spec.native or image.shape == spec.shape
    assert image.shape[-1] == spec.shape[-1]


def test_fitting_shows_training_images_as_scoring_does(opened):
  module, cfg, data = opened
  found = data.fitting()
  assert len(found) and not found.batch_ops and not found.example_ops and not found.ragged
  scored = data.split("val").read_one(0)["image"]
  images = found.read(np.arange(len(found)))["image"]
  assert images.dtype == scored.dtype and images.shape[-1] == scored.shape[-1]
  assert module.spec(cfg).native or images.shape[1:] == scored.shape
  again = data.fitting().read(np.arange(len(found)))["image"]
  np.testing.assert_array_equal(images, again)  # nothing is drawn anew
  assert len(found.meta(0)["id"]) > 0


FILES = {"camelyon": "train_normal_{}.png", "nih": "train_normal_{}.png"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_read_alone_is_the_example_that_is_scored_and_fitted(name, tmp_path):
  module = datasets.module(name)
  cfg = module.resolve(TINY[name](tmp_path))
  data = module.build(cfg, 0)
  fitting = data.fitting()
  for i in range(len(fitting)):
    np.testing.assert_array_equal(module.read_example(fitting.meta(i)["path"], cfg),
                                  fitting.read_one(i)["image"])
  test = data.split("test")
  image = module.read_example(test.meta(0)["path"], cfg)
  np.testing.assert_array_equal(image, test.read_one(0)["image"])
  placed = module.place_map(np.ones(image.shape[:2]), (50, 50), cfg)
  assert placed.shape == (50, 50) and placed.max() == 1 and placed[25, 25] == 1


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("brats", "synthetic", "natural")])
def test_read_example_gives_what_the_spec_promises(name, tmp_path):
  module = datasets.module(name)
  cfg = module.resolve(TINY[name](tmp_path / "set"))
  spec = module.spec(cfg)
  _image(tmp_path / "a.png", (64, 64, 3))
  image = module.read_example(tmp_path / "a.png", cfg)
  assert image.dtype == np.float32 and image.shape[-1] == spec.shape[-1]
  assert spec.native or image.shape == spec.shape
  _inside(image, spec)
  assert module.place_map(np.zeros(image.shape[:2]), (64, 64), cfg).shape == (64, 64)


def test_all_of_this_needs_no_tensorflow():
  blocked.run_without_tensorflow(
      "from data_pipelines import dataset\n"
      "for name in dataset.dataset_names():\n"
      "  module = dataset.module(name)\n"
      "  cfg = module.resolve(module.defaults())\n"
      "  assert module.spec(cfg).shape[2], name")


# -------------------------------------------------------------------------------- modules elsewhere
def test_modules_outside_the_tree_need_build_alone(caplog, tmp_path):
  module = datasets.module("tests.tiny_data")
  assert module.defaults() is None
  cfg = ml_collections.ConfigDict(dict(name="tests.tiny_data", image_size=16, channels=1))
  assert module.resolve(cfg) is cfg and module.spec(cfg).shape == (16, 16, 1)
  data = datasets.open_dataset(cfg, 0)
  fitting = data.fitting()
  assert set(fitting.read_one(0)) == set(data.split("val").read_one(0)) and not fitting.batch_ops
  _image(tmp_path / "a.png", (32, 32, 3))
  image = module.read_example(tmp_path / "a.png", cfg)
  assert image.shape == (16, 16, 1) and image.min() >= 0 and image.max() <= 1
  assert module.read_example(tmp_path / "a.png", cfg, (8, 4, 3)).shape == (8, 4, 3)
  assert sum("no read_example" in r.message for r in caplog.records) == 1
  assert module.place_map(np.ones((16, 16)), (32, 24), cfg).shape == (32, 24)


def test_open_is_accepted_as_the_old_name_of_build(caplog):
  old = type("Old", (), {"open": staticmethod(tiny_data.Tiny)})
  assert isinstance(datasets.Module("somewhere.old", old).build({}, 0), tiny_data.Tiny)
  assert "call it `build`" in caplog.text


def test_unknown_names_are_refused_with_the_nearest():
  with pytest.raises(UserError, match="did you mean segmentation.*annotations, brats"):
    datasets.open_dataset({"name": "segmentaton"}, 0)
  with pytest.raises(UserError, match="nowhere.data.*is not a data set"):
    datasets.module("nowhere.data")


def test_several_streams_must_say_what_is_fitted():
  data = tiny_data.Tiny(ml_collections.ConfigDict(dict(image_size=16, streams=True)), 0)
  with pytest.raises(UserError, match="DataSet.fitting"):
    data.fitting()
