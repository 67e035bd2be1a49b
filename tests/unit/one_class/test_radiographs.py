"""prepare nih: parts as streams or unpacked files, lists, what is missing or damaged."""

import csv
import io
import json
import tarfile

import numpy as np
from PIL import Image
import pytest

from data_pipelines.errors import UserError
from data_pipelines.one_class import radiograph_job, radiographs
from data_pipelines.prepare import nih
from tests.unit.one_class import radiograph_parts
from tests.unit.one_class.radiograph_parts import NAMES


@pytest.fixture(scope="module")
def pictures():
  return {name: radiograph_parts.picture(i) for i, name in enumerate(NAMES)}


@pytest.fixture
def source(tmp_path, pictures):
  return radiograph_parts.write(tmp_path / "download", pictures)


def files(target):
  return {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*")
          if p.is_file() and "records" not in p.parts}


def test_parts_become_images_lists_and_a_manifest(source, pictures, tmp_path):
  subset = tmp_path / "folds" / "train_test_split" / "nih" / "subset"
  for part in radiographs.PARTS:
    (subset / part).parent.mkdir(parents=True, exist_ok=True)
    (subset / part).write_text(f"{NAMES[1]}\n")
  target = tmp_path / "out"
  where = [f"--source={source}", f"--target={target}", f"--subset={tmp_path / 'folds'}"]
  nih.main([*where, "--workers=2", "--strict"])
  for name, (image, _) in pictures.items():
    wanted = np.asarray(Image.fromarray(image).resize((300, 300), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(np.asarray(Image.open(target / "nih_300" / name)), wanted)
  lists = target / "train_test_split" / "nih"
  assert (lists / "PA/normal/train").read_text().split() == [NAMES[0], NAMES[2]]
  assert (lists / "AP/normal/test").read_text().split() == [NAMES[5]]
  assert (lists / "AP/anomaly/test").read_text().split() == [NAMES[7]]
  assert (lists / "subset/normal/test").read_text().split() == [NAMES[1]]
  with (target / "manifest.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert [r["file"] for r in rows] == [f"nih_300/{n}" for n in NAMES]
  assert rows[7]["lists"] == "AP/anomaly/test"
  assert [r["findings"] for r in rows] == ["No Finding"] * 6 + ["Mass|Nodule"] * 2
  assert [(r["view"], int(r["patient"])) for r in rows] == [(("PA", "AP")[i % 2], i // 2) for i in range(8)]
  before = files(target)
  (target / "nih_300" / NAMES[2]).unlink()
  nih.main([*where, "--workers=1"])
  assert files(target) == before


def test_unpacked_images_give_the_same_and_changed_ones_are_stored_again(source, pictures, tmp_path,
                                                                         monkeypatch):
  radiographs.prepare(source, tmp_path / "streamed", count=1)
  for file in source.glob("*.tar.gz"):
    file.unlink()
  for name, (_, content) in pictures.items():
    (source / "images").mkdir(exist_ok=True)
    (source / "images" / name).write_bytes(content)
  monkeypatch.setattr(radiographs, "_CHUNK", 3)  # files a job
  radiographs.prepare(source, tmp_path / "unpacked", count=1)
  assert files(tmp_path / "streamed") == files(tmp_path / "unpacked")
  Image.new("L", (400, 400), 77).save(source / "images" / NAMES[4])
  radiographs.prepare(source, tmp_path / "unpacked", count=1)
  assert np.unique(np.asarray(Image.open(tmp_path / "unpacked" / "nih_300" / NAMES[4]))).tolist() == [77]


def test_a_giant_among_the_images_is_not_read(source, tmp_path, monkeypatch):
  monkeypatch.setattr(radiograph_job, "_LARGEST", 100)
  with pytest.raises(UserError, match="that is no radiograph; .*that is no radiograph"):
    radiographs.prepare(source, tmp_path / "out", count=1)


def test_a_part_that_breaks_off_is_named_and_the_others_are_stored(source, tmp_path):
  part = source / "images_001.tar.gz"
  part.write_bytes(part.read_bytes()[:-3000])
  with pytest.raises(UserError, match="images_001.tar.gz is damaged or was not downloaded to its end.*after"):
    radiographs.prepare(source, tmp_path / "out", count=1)
  report = json.loads((tmp_path / "out" / "report.json").read_text())
  assert report["images"] == 4 and report["missing"] == 4 and list(report["damaged_parts"]) == ["images_001"]


def test_a_damaged_image_is_left_out(source, tmp_path):
  for file in source.glob("*.tar.gz"):
    file.unlink()
  (source / NAMES[0]).write_bytes(b"no image")
  with pytest.raises(UserError, match="1 images cannot be read, 8 of the table are not there, and --strict"):
    radiographs.prepare(source, tmp_path / "out", count=1, strict=True)
  report = json.loads((tmp_path / "out" / "report.json").read_text())
  assert NAMES[0] in report["left_out"] and report["listed_without_image"]["PA/normal/train"] == 2


def test_wrong_requests(source, tmp_path):
  with pytest.raises(UserError, match="--side is 16"):
    nih.main([f"--source={source}", f"--target={tmp_path}", "--side=0"])
  with pytest.raises(FileNotFoundError, match="Data_Entry_2017.csv"):
    radiographs.prepare(tmp_path / "nowhere", tmp_path / "out")
  for file in source.glob("*.tar.gz"):
    file.unlink()
  with pytest.raises(UserError, match=r"neither images_\*.tar.gz nor .png"):
    radiographs.prepare(source, tmp_path / "out")


def test_what_is_no_radiograph_in_a_part_is_passed_over(tmp_path):
  """A folder and a note of how it was packed come first in real parts."""
  with tarfile.open(tmp_path / "part.tar.gz", "w:gz") as archive:
    for k, (name, kind) in enumerate((
        ("images", tarfile.DIRTYPE), ("images/README.txt", tarfile.REGTYPE), ("images/a.png", None),
        ("images/b.PNG", None), ("images/link.png", tarfile.SYMTYPE), ("c.png", None))):
      member = tarfile.TarInfo(name)
      member.type, member.size = kind or tarfile.REGTYPE, 0 if kind else 1
      archive.addfile(member, io.BytesIO(b"%d" % k))
  job = {"tar": str(tmp_path / "part.tar.gz")}
  found = [(name, path.read_bytes()) for name, path in radiograph_job._images(job, tmp_path / "scratch")]
  assert found == [("a.png", b"2"), ("b.PNG", b"3"), ("c.png", b"5")]
