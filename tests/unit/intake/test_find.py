"""The one search: every data set and predictor x what folders of people hold."""

import ast
import os
import pathlib
import types

import pytest

from data_pipelines.brains import files, inputs
from data_pipelines.errors import UserError
from data_pipelines.intake import counts, find, foreign
from data_pipelines.masks import images as mask_images
from data_pipelines.one_class import folders
from data_pipelines.pairs import frames
from data_pipelines.prepare import pairs as prepare_pairs
from medae_jax.tasks.anomaly import predictor as anomaly
from medae_jax.tasks.anomaly.written import layouts
from medae_jax.tasks.restoration import predictor as restoration
from medae_jax.tasks.segmentation import predictor as segmentation
from tests import messy_folder

ROOT = pathlib.Path(__file__).parents[3]
LEGACY = {"group_pattern": "", "grouping": "patient", "normal_words": (), "anomaly_words": ()}


def _predictor(module, **fields):
  predictor = module.Predictor.__new__(module.Predictor)
  vars(predictor).update(config=types.SimpleNamespace(predict=types.SimpleNamespace(output="")),
                         _dicom=types.SimpleNamespace(announce=lambda scans: None),
                         _layout=layouts.Files(), **fields)
  return predictor


def _predicted(module, **fields):
  def search(root):
    predictor = _predictor(module, **fields)
    items = predictor.find_inputs(root)
    if predictor.found.broken:
      raise UserError("; ".join(f"{i.path} {i.reason}" for i in predictor.found.broken))
    return [pathlib.Path(f) for item in items for f in predictor.files_of(item)]
  return search


def _one_class(root):
  found = folders.read_folders(root, LEGACY)
  return [pathlib.Path(i.path) for items in found.values() for i in items]


def _brats(root):
  found = files.find_scans(root, ("flair",))
  if found.incomplete and not found.scans:
    raise UserError("; ".join(found.incomplete.values()))
  return [pathlib.Path(v) for scan in found.scans for v in scan.volumes]


def _segmentation_pairs(root):
  """Masks of the same names, beside the images."""
  masks = root.parent / "masks"
  if not masks.exists():
    masks.symlink_to(root)
  return [image for _, image, _ in mask_images.pair(root, masks)]


def _prepared_pairs(root):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(prepare_pairs.images, "read_unit", lambda path, *_: path)
    found = list(prepare_pairs._frames(root, 1, 0, (), None))
    assert len({name.casefold() for name, _ in found}) == len(found)
    return [path for _, path in found]


# name: (search, ending of its inputs, folder of the inputs below the root)
SEARCHES = {
    "find": (lambda root: find.find(root, ("image",)).files, ".png", ""),
    "pairs, annotations": (frames.list_frames, ".png", ""),
    "prepare pairs": (_prepared_pairs, ".png", ""),
    "segmentation folders": (_segmentation_pairs, ".png", ""),
    "one class": (_one_class, ".jpeg", "train/normal"),
    "predict images": (_predicted(anomaly, modalities=()), ".tif", ""),
    "predict volumes": (_predicted(anomaly, modalities=("flair",)), ".nii.gz", ""),
    "predict restoration": (_predicted(restoration), ".bmp", ""),
    "predict segmentation": (_predicted(segmentation), ".png", "")}
STRICT = [name for name in SEARCHES if name != "find"]


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_uses_every_file(tmp_path, name):
  search, ending, below = SEARCHES[name]
  folder = tmp_path / "in" / below
  folder.mkdir(parents=True)
  used = messy_folder.fill(folder, ending, tmp_path / "outside")
  found = search(tmp_path / "in")
  assert len(found) == len(set(found)) == len(used)
  assert {p.relative_to(folder).as_posix() for p in found} == used


@pytest.mark.parametrize("kind", messy_folder.BROKEN)
@pytest.mark.parametrize("name", STRICT)
def test_every_search_names_what_cannot_be_read(tmp_path, name, kind):
  search, ending, below = SEARCHES[name]
  folder = tmp_path / "in" / below
  folder.mkdir(parents=True)
  (folder / f"good{ending}").write_bytes(b"x")
  make, reason = messy_folder.BROKEN[kind]
  make(folder / f"bad{ending}")
  with pytest.raises(UserError, match=rf"bad\{ending} .*{reason}"):
    search(tmp_path / "in")


def test_scan_folders_are_found_by_the_one_search(tmp_path):
  root = tmp_path / "in"
  write = lambda path: (path.parent.mkdir(parents=True, exist_ok=True), path.write_bytes(b"x"))
  for i, (first, second) in enumerate([("flair.nii.gz", "seg.nii.gz"), ("FLAIR.NII.GZ", "Seg.nii"),
                                       ("flair.nii", "seg.NII")]):
    for part in (first, second):
      write(root / f"P{i}" / f"P{i}_{part}")
  for i in (3, 4):
    write(tmp_path / "store" / f"P{i}" / f"P{i}-t2f.nii.gz")
    write(tmp_path / "store" / f"P{i}" / f"P{i}-seg.nii.gz")
    (root / f"P{i}").symlink_to(tmp_path / "store" / f"P{i}")
  write(root / "._P0" / "P0_flair.nii.gz")
  write(root / "twice" / "twice_flair.nii")
  for name in ("twice_flair.nii.gz", "twice_seg.nii"):
    write(root / "twice" / name)
  write(root / "gone" / "gone_seg.nii.gz")
  messy_folder.dangling(root / "gone" / "gone_flair.nii.gz")
  found = files.find_scans(root, ("flair",))
  assert sorted(s.patient for s in found.scans) == ["P0", "P1", "P2", "P3", "P4"]
  assert "2 flair volumes (twice_flair.nii, twice_flair.nii.gz)" in found.incomplete["twice"]
  assert "does not exist" in found.incomplete["gone"]


def test_counts_add_up(tmp_path):
  used = messy_folder.fill(tmp_path / "in", ".png", tmp_path / "out")
  messy_folder.dangling(tmp_path / "in" / "gone.png")
  found = find.find(tmp_path / "in", ("image",))
  reasons = {i.path.relative_to(tmp_path / "in").as_posix(): i.reason for i in found.left_out}
  assert set(reasons) == {*messy_folder.OTHERS, "again", "sub/up", "to_store/back", "above",
                          "older results", "gone.png"}
  assert "searched already" in reasons["again"] and "lies in" in reasons["above"]
  assert found.ignored == len(messy_folder.SYSTEM) + len(messy_folder.SYSTEM_FILES)
  lines = [line.split(maxsplit=1) for line in counts.table(found).splitlines()]
  assert sum(int(n) for n, _ in lines[:-1]) == int(lines[-1][0]) == (
      len(used) + len(reasons) + found.ignored)
  assert [i.path.name for i in found.broken] == ["gone.png"]


@pytest.mark.parametrize("name,content,kind", [
    ("a.png", b"", "image"), ("A.TIFF", b"", "image"), ("a.DCM", b"", "dicom"), ("a.ima", b"", "dicom"),
    ("a.Nii.gZ", b"", "nifti"), ("a.nii", b"", "nifti"), ("a.gz", b"", ""), (".png", b"", ""),
    ("IM000001", b"\0" * 128 + b"DICM", "dicom"), ("1.2.840.1", b"\0" * 128 + b"DICM", "dicom"),
    ("MR.1.2.840", b"\0" * 128 + b"DICM", "dicom"), ("IM1.dat", b"\0" * 128 + b"DICM", "dicom"),
    ("raw", b"\x08\0\x05\0CS\x0a\0ISO_IR 100".ljust(140, b"\0"), "dicom"),
    ("raw", b"\x08\0\x08\0\x04\0\0\0AXIA".ljust(140, b"\0"), "dicom"),
    ("raw", b"\x02\0\x10\0UI\x14\0" + b"1.2.840".ljust(140, b"\0"), "dicom"),
    ("raw", b"\x02\0\x11\0UI\x14\0" + b"1.2.840".ljust(140, b"\0"), ""),
    ("raw", b"\x08\0\x08\0\x04\0\0\0AXIA", ""), ("notes", b"\0" * 200, ""), ("notes.txt", b"text " * 60, ""),
    ("labels.CSV", b"", "table"), ("DICOMDIR", b"\0" * 128 + b"DICM", ""), ("empty", b"", "")])
def test_kinds(tmp_path, name, content, kind):
  (tmp_path / name).write_bytes(content)
  assert find.kind_of(tmp_path / name) == kind
  assert find.kind_of(tmp_path / "absent" / name) in (kind, "")


def test_names_lose_known_endings_alone():
  stems = {"a.nii.gz": "a", "b.NII": "b", "c.tar.gz": "c.tar.gz", "1.2.826.0.1": "1.2.826.0.1",
           ".png": ".png", "x/d.v2.PNG": "d.v2", "nii.gz": "nii.gz", ".nii.gz": ".nii.gz"}
  assert {name: find.stem_of(name) for name in stems} == stems
  assert find.suffix_of("P1_t1.Nii.Gz") == ".Nii.Gz" and not find.suffix_of(".nii")


def test_what_a_search_leaves_aside(tmp_path):
  """An index, results behind a link, a link to nothing that might have been a file without ending."""
  root, results = tmp_path / "in", tmp_path / "results"
  for path in (root / "c.dcm", root / "sub" / "b.dcm", root / "DICOMDIR", results / "a.dcm"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM")
  (results / "predictions.csv").write_text("input,score\n")
  (root / "older").symlink_to(results)
  (tmp_path / "store" / "sub").mkdir(parents=True)
  (tmp_path / "store" / "sub" / "d.dcm").touch()
  (root / "l1").symlink_to(tmp_path / "store" / "sub")
  (root / "l2").symlink_to(tmp_path / "store")  # its folder is known under another name
  messy_folder.dangling(root / "IM1")
  messy_folder.dangling(root / "notes.txt")
  found = find.find(root, ("dicom",))
  assert [p.relative_to(root).as_posix() for p in found.files] == ["c.dcm", "l1/d.dcm", "sub/b.dcm"]
  reasons = {item.path.name: item.reason for item in found.left_out}
  assert "index" in reasons.pop("DICOMDIR") and "results of a prediction" in reasons.pop("older")
  assert reasons.pop("sub") == "is searched already as l1"
  assert set(reasons) == {"IM1", "notes.txt"} and [i.path.name for i in found.broken] == ["IM1"]
  assert find.find(root, ("dicom",), deep=False).files == [root / "c.dcm"]


@pytest.mark.parametrize("name, advice", [
    ("a.nrrd", ": save it as .nii.gz"), ("a.MHA", ": save it as .nii.gz"),
    ("a.nii.bz2", ": save it as .nii.gz"),
    ("a.zip", ": unpack it"), ("a.webp", ""), ("notes.txt", "")])
def test_a_format_of_the_field_that_is_not_read_comes_with_what_to_do(tmp_path, name, advice):
  (tmp_path / name).write_bytes(b"NRRD0004")
  (item,) = find.find(tmp_path, ("nifti",)).left_out
  assert item.reason.startswith(f"is no NIfTI volume{advice}") and (advice or ":" not in item.reason)
  (item,) = find.find(tmp_path, ("image",)).left_out
  assert ("PNG" in item.reason) == (name == "a.webp")


def test_names_of_what_is_left_out_are_few_and_on_one_line(tmp_path):
  items = [find.LeftOut(tmp_path / f"{i}\n\u202eb", "is no image", broken=i < 3) for i in range(23)]
  found = find.Found(tmp_path, left_out=items)
  lines = counts.names(found)
  assert lines[0] == r"left out: 0\n\u202eb is no image" and lines[20:] == ["left out: 3 more"]
  with pytest.raises(UserError, match=r"0\\n\\u202eb is no image \(and 2 more\): mend it"):
    counts.refuse_broken(found)


def test_what_is_no_file_does_not_start_as_dicom(tmp_path):
  (tmp_path / "IM0").write_bytes(bytes(128) + b"DICM")
  os.mkfifo(tmp_path / "IM1")  # reading it would wait for ever
  (tmp_path / "IM2").mkdir()
  assert [foreign.begins_as_dicom(tmp_path / f"IM{k}") for k in range(3)] == [True, False, False]


def test_a_file_or_nothing(tmp_path):
  (tmp_path / ".hidden.png").write_bytes(b"")
  assert find.find(tmp_path / ".hidden.png", ("image",)).files == [tmp_path / ".hidden.png"]
  assert not find.find(tmp_path, ("image",)).files
  with pytest.raises(FileNotFoundError):
    find.find(tmp_path / "no", ("image",))
  with pytest.raises(FileNotFoundError, match="holds no NIfTI volume or image"):
    counts.files(tmp_path, ("image", "nifti"))
  with pytest.raises(ValueError):
    find.find(tmp_path, ("picture",))
  messy_folder.looping(tmp_path / "loop")
  with pytest.raises(UserError, match="cannot be read"):
    find.find(tmp_path / "loop", ("image",))


def test_a_picture_beside_scans_is_named(tmp_path):
  for name in ("P1_flair.nii.gz", "P1_t1.nii.gz", "P1_qc.png", "P1_flair.png", "P1_seg.nii.gz",
               "P1_t2.nii.gz", "P1.nii.gz", "P2_flair.png", "P2_t1.png", "P3.nii", "P3.nii.gz",
               "P4_t1.nii.gz", "P4_t1.NII.GZ"):
    (tmp_path / name).write_bytes(b"x")
  scans, found = inputs.find_all(tmp_path, ("flair", "t1"), ("nifti", "image"))
  assert [s.name for s in scans] == ["P1", "P1_flair", "P3_nii", "P3_nii_gz", "P4_NII_GZ",
                                     "P4_nii_gz_2", "P2"]
  reasons = {i.path.name: i.reason for i in found.left_out}
  assert set(reasons) == {"P1_qc.png", "P1_flair.png", "P1_seg.nii.gz", "P1_t2.nii.gz"}
  assert not found.broken and "beside scans" in reasons["P1_qc.png"]
  assert len(found.files) == sum(len(s.files) for s in scans)


def test_a_folder_met_again_does_not_end_the_search(tmp_path):
  """One link leads into a folder outside, another to the folder around it, with others on either side."""
  for name in ("a", "m", "z"):
    (tmp_path / "out" / name).mkdir(parents=True)
    (tmp_path / "out" / name / f"{name}.png").write_bytes(b"x")
  (tmp_path / "root").mkdir()
  (tmp_path / "root/l0").symlink_to(tmp_path / "out/m")
  (tmp_path / "root/l1").symlink_to(tmp_path / "out")
  found = find.find(tmp_path / "root", ("image",))
  assert sorted(p.name for p in found.files) == ["a.png", "m.png", "z.png"]
  assert [i.reason for i in found.left_out] == ["is searched already as l0"]


def test_two_files_of_a_modality_of_a_scan_are_no_input_and_one_of_them_has_to_go(tmp_path):
  for name in ("P1_flair.nii.gz", "P1_FLAIR.nii.gz", "P1_t1.nii.gz", "P2_flair.nii.gz", "P2_t1.nii.gz"):
    (tmp_path / name).write_bytes(b"x")
  scans, found = inputs.find_all(tmp_path, ("flair", "t1"), ("nifti",))
  assert [s.name for s in scans] == ["P2"] and all(p.name.startswith("P2") for p in found.files)
  assert {i.path.name for i in found.broken} == {"P1_flair.nii.gz", "P1_FLAIR.nii.gz", "P1_t1.nii.gz"}
  assert all("several files of a modality of P1: keep one" in i.reason for i in found.broken)


# What looks at one given name, at its own results, or at prepared sets.
ALLOWED = {
    "data_pipelines/intake/find.py", "data_pipelines/intake/tables.py",
    "data_pipelines/datasets/_natural_files.py", "data_pipelines/brains/tfds_brats.py",
    "data_pipelines/brains/prepare.py",
    "data_pipelines/whole_folder.py", "data_pipelines/claims.py", "data_pipelines/store.py",
    "data_pipelines/one_class/radiographs.py",  # tar parts, which are no inputs
    "data_pipelines/slides/camelyon/source.py", "data_pipelines/slides/camelyon/beam.py",
    "data_pipelines/one_class/lists.py", "medae_jax/tasks/base.py", "medae_jax/tasks/score_of.py"}


def test_nobody_else_searches():
  """A new search for inputs would have rules of its own."""
  walks = {"rglob", "glob", "iglob", "iterdir", "walk", "scandir", "listdir", "fwalk"}
  for folder in ("data_pipelines", "medae_jax/tasks"):
    for path in sorted((ROOT / folder).rglob("*.py")):
      if "site-packages" in path.parts or path.relative_to(ROOT).as_posix() in ALLOWED:
        continue
      called = {node.func.attr for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
                and not (isinstance(node.func.value, ast.Name) and node.func.value.id == "ast")}
      assert not called & walks, f"{path} looks for files by {called & walks}: use intake.find"
