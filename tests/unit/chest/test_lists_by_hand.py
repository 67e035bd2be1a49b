"""Who is trained and tested on of a public chest data set, and what its marks cover, without its tables."""

import numpy as np
from PIL import Image
import pytest

from data_pipelines import fields
from data_pipelines.chest import covid_radiography, listing
from data_pipelines.chest.listing import Radiograph
from data_pipelines.datasets import _chest_lists, chest_xray
from data_pipelines.errors import UserError


def config(**given):
  return fields.changed(chest_xray.defaults(), layout="covid_radiography", root="x", image_size=8,
                        **{"val_share": 0.2, "test_share": 0.3, "fold_seed": 3, **given})


@pytest.fixture(name="found")
def radiographs(monkeypatch):
  """p0 to p9 have two normal images, p0 to p4 one with a finding too; q0 to q5 have findings alone."""
  made = [Radiograph(f"p{k}_{i}.png", f"/x/p{k}_{i}.png", "normal", f"p{k}")
          for k in range(10) for i in (1, 2)]
  made += [Radiograph(f"{p}_9.png", f"/x/{p}_9.png", "covid", p) for p in (
      *(f"p{k}" for k in range(5)), *(f"q{k}" for k in range(6)))]
  monkeypatch.setattr(covid_radiography, "radiographs", lambda root: made)
  return made


def test_patients_are_divided_by_their_shares_and_findings_of_trained_ones_are_not_used(found):
  for seed in (3, 4):
    lists, _, known = _chest_lists.public(config(fold_seed=seed))
    order = [f"p{k}" for k in np.random.default_rng(seed).permutation(10)]
    place = dict(zip(order, ["test"] * 3 + ["val"] * 2 + ["train"] * 5))
    order = [f"q{k}" for k in np.random.default_rng(seed).permutation(6)]
    place |= dict(zip(order, ["test"] * 4 + ["val"] * 2))
    names = lambda part: sorted(i.name for i in lists[part])
    of = lambda split, normal: sorted(r.name for r in found if place[r.patient] == split and (
        r.finding == "normal") == normal)
    assert names("train") == of("train", True) and len(names("train")) == 10
    for split in ("val", "test"):
      assert names(f"{split}_normal") == of(split, True) and names(f"{split}_anomaly") == of(split, False)
    assert set(known) == {r.name for r in found}


def test_each_file_is_a_patient_where_that_is_asked_for(found):
  lists = _chest_lists.public(config(grouping="file"))[0]
  assert all(i.group == i.name for items in lists.values() for i in items)
  assert [len(lists[p]) for p in ("train", "val_normal", "test_normal")] == [10, 4, 6]
  by_number = _chest_lists.public(config(group_pattern=r"_(\d)", val_share=0.4, test_share=0.4))[0]
  assert {i.group for items in by_number.values() for i in items} <= {"1", "2", "9"}


# ------------------------------------------------------------------------------------ masks and boxes
def save(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path)
  return path


def test_a_pixel_of_a_mask_is_marked_by_more_than_half_and_no_mask_vanishes(tmp_path):
  mask = np.zeros((4, 4), np.uint8)
  mask[:2, 0] = 255   # two of four
  mask[:2, 2:] = 255
  mask[1, 3] = 0      # three of four
  found = _chest_lists.read_mask(save(tmp_path / "a.png", mask), 2)
  assert found[..., 0].tolist() == [[0, 1], [0, 0]]
  tiny = np.zeros((40, 20), np.uint8)
  tiny[33, 17] = 1
  found = _chest_lists.read_mask(save(tmp_path / "b.png", tiny), 2, (80, 40))
  assert found[..., 0].tolist() == [[0, 0], [0, 1]]
  for shape in ((20, 40), (40, 40), (40, 21)):
    with pytest.raises(UserError, match="is 20x40 pixels, its image"):
      _chest_lists.read_mask(tmp_path / "b.png", 2, shape)
  assert _chest_lists.read_mask(tmp_path / "b.png", 2, (401, 200)).any()


def test_a_mask_has_the_whole_path_of_its_image_or_that_without_its_split():
  masks = {"test/crack/3": "whole", "crack/3": "below", "crack/4": "other", "5": "top"}
  names = {"test/crack/3.png": "whole", "val/crack/3.png": "below", "test/crack/4.jpg": "other",
           "5.png": "top", "test/crack/6.png": "", "6.png": ""}
  assert {n: _chest_lists._mask_of(n, masks) for n in names} == names


def test_boxes_cover_centres_of_pixels():
  """Columns of 1.6 pixels: of [1, 3.2) the second centre alone, 2.4."""
  found = listing.rasterise([(1.0, 0.0, 2.2, 20.0)], (20, 16), 10)
  assert found[:, 1].all() and found.sum() == 10
  for box, fine in (((0, 0, 17, 21), True), ((0, 0, 19, 20), False), ((0, 0, 16, 23), False),
                    ((9, 0, 9, 5), False), ((0, 15, 5, 8), False)):
    one = Radiograph("a", "a.png", boxes=(box,))
    if fine:
      listing.check_inside(one, (20, 16))
    else:
      with pytest.raises(UserError, match="a.png has 16x20 pixels, its box"):
        listing.check_inside(one, (20, 16))


@pytest.mark.parametrize("cells, fine", [("0,0,3,4", True), ("-1,0,3,4", False), ("0,-1,3,4", False),
                                         ("0.2,0.2,0.5,2", True), ("0.2,0.2,0.5,0.5", False)])
def test_places_of_boxes(tmp_path, cells, fine):
  (tmp_path / "boxes.csv").write_text(f"file,x,y,width,height\na.png,{cells}\nb.png,,,,\n")
  if fine:
    box = tuple(map(float, cells.split(",")))
    assert list(listing.read_boxes(tmp_path / "boxes.csv").values()) == [(box,), ()]
  else:
    with pytest.raises(UserError, match="boxes.csv line 2"):
      listing.read_boxes(tmp_path / "boxes.csv")


# ------------------------------------------------------------------------------------------------ pixels
@pytest.mark.parametrize("fields_of, window, shown", [
    ({}, (0, 1000), 0.9), ({"bits": 12}, (0, 0), 900 / 4095), ({"bits": 12}, (0, 1000), 0.9),
    ({"bits": 12, "inverted": True}, (0, 1000), 0.1)])
def test_what_a_table_says_of_the_pixels(tmp_path, fields_of, window, shown):
  path = save(tmp_path / "a.png", np.full((8, 8), 900, np.uint16))
  found = listing.read_unit(Radiograph("a", str(path), **fields_of), window)
  np.testing.assert_allclose(found, shown, atol=1e-4)
  with pytest.raises(UserError, match="16-bit pixels"):
    listing.read_unit(Radiograph("a", str(path)))


def test_what_a_table_says_holds_for_training_and_scoring(tmp_path, monkeypatch):
  """And lungs are shown where every image has their mask, the training is as long as was asked for."""
  lungs = np.zeros((8, 8), np.uint8)
  lungs[:, :4] = 255
  save(tmp_path / "lungs.png", lungs)
  made = []
  for k in range(8):
    path = save(tmp_path / f"{k}.png", np.full((8, 8), 51, np.uint8))
    made.append(Radiograph(f"{k}.png", str(path), "normal" if k < 6 else "covid", inverted=True,
                           lungs=str(tmp_path / "lungs.png")))
  monkeypatch.setattr(covid_radiography, "radiographs", lambda root: made)
  data = chest_xray.build(config(), 0)
  test = data.split("test").read_one(0)
  for shown in (test, data.train().read_one(0), data.fitting().read_one(0)):
    np.testing.assert_allclose(shown["image"], 0.8, atol=1e-6)
  assert test["lungs"][:, :4].all() and not test["lungs"][:, 4:].any() and "mask" not in test
  few, every = (chest_xray.build(config(train_limit=n), 0).lists["train"] for n in (1, 0))
  assert len(every) == 2 and few == every[:1]
  made[0] = Radiograph("0.png", made[0].path)
  assert "lungs" not in chest_xray.build(config(), 0).split("test").read_one(0)


@pytest.mark.parametrize("said, value", [({"bits": 12}, round(255 * 900 / 4095)),
                                         ({"bits": 12, "inverted": True}, round(255 * (1 - 900 / 4095)))])
def test_the_first_channel_is_what_the_table_says_of_its_bits_and_its_sign(tmp_path, said, value):
  path = save(tmp_path / "a.png", np.full((8, 8), 900, np.uint16))
  found = chest_xray._first_channel(Radiograph("a", str(path), **said), {"window": (0, 0)})
  assert found.dtype == np.uint8 and (found == value).all() and found.shape == (8, 8, 1)


@pytest.mark.parametrize("preparation", ["antialiased", "published"])
def test_the_published_validation_of_training_is_prepared_as_training(tmp_path, preparation):
  """8x8 to 2x2: two neighbours of four are the dark rows 1, 2 and 5, 6; a wider filter sees the white ones.

  Pillow's triangle reaches 4 pixels from the middle of an output pixel, 2: rows 0 to 5 have 5, 7, 7, 5, 3, 1
  of 28 parts; of them 0, 3 and 4 are white.
  """
  white = np.isin(np.arange(8), [0, 3, 4, 7])
  for i, part in enumerate(("train/normal", "val/normal", "val/covid", "test/normal", "test/covid")):
    image = np.where(white[:, None], 240, 0) * np.ones(8, np.uint8)
    image[white] -= i  # no two files alike
    save(tmp_path / part / f"{i}.png", image.astype(np.uint8))
  cfg = fields.changed(chest_xray.defaults(), root=str(tmp_path), image_size=2, preparation=preparation)
  data = chest_xray.build(cfg, 0)
  wide = lambda value: value / 255 * (5 + 5 + 3) / 28
  seen = {name: source.read_one(0)["image"] for name, source in (
      ("train", data.train()), ("validation", data.validation()), ("val", data.split("val")),
      ("test", data.split("test")))}
  plain = preparation == "published"
  for name, value in (("train", 240), ("validation", 239), ("val", 239), ("test", 237)):
    want = 0 if plain and name in ("train", "validation") else wide(value)
    np.testing.assert_allclose(seen[name], want, atol=1.01 / 255, err_msg=name)


@pytest.mark.parametrize("covid", [False, True])
def test_covid_of_the_papers_lists_has_normal_images_of_another_source(tmp_path, caplog, covid):
  """Of its two tasks one has its own normal images in the lists: RSNA's, against opacities."""
  for kinds in _chest_lists.CSV_FILES.values():
    for name, _ in kinds:
      if covid or "covid" not in name:
        (tmp_path / name).write_text(f"filename\n./{name[:-4]}.png\n")
        save(tmp_path / f"{name[:-4]}.png", np.full((8, 8), len(name), np.uint8))
  lists, _ = _chest_lists.csv_lists(config(lists_root=str(tmp_path), image_root=str(tmp_path)))
  assert [i.kind for i in lists["test_anomaly"]] == ["lung opacity"] + ["covid"] * covid
  assert ("covid is of PadChest" in caplog.text) == covid
