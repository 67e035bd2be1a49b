"""--mode=serve: the numbers and files of predict, one line for every error, nothing kept, one at a time."""

import asyncio
import base64
import gzip
import io
import json
import threading
import zipfile

import nibabel
import numpy as np
from PIL import Image
import pytest

from medae_jax import cli, serve
from medae_jax.core import calibration, scratch
from medae_jax.core.errors import UserError
from medae_jax.serving import answers, app as application, uploads
from medae_jax.serving.problems import Problem
from tests import console, dicom_series_files as series
from tests.unit.modes.test_predict import brain, go, rotated, save
from tests.unit.serving import asking


@pytest.fixture
def scan(tmp_path):
  """[(name, content)] of a scan of two modalities; its folder is <tmp_path>/in."""
  save(tmp_path / "in", brain(), rotated())
  return [(p.name, p.read_bytes()) for p in sorted((tmp_path / "in").iterdir())]


def test_scores_and_files_are_those_of_predict(app, served_run, drop_folder, scan, tmp_path):
  (row,) = go(served_run, tmp_path / "in", tmp_path / "out")
  status, found = asking.post(app, scan, "?include=files,view")
  assert status == 200 and found["score"] == row["score"] and found["input"] == "p1"
  assert found["row"]["mask_ml"] == pytest.approx(row["mask_ml"]) and found["threshold"] == row["threshold"]
  sent = {f["name"]: base64.b64decode(f["base64"]) for f in found["files"]}
  assert set(sent) == {"p1_anomaly.nii.gz", "p1_mask.nii.gz", "p1_overlay.png"}
  status, packed = asking.post(app, scan, "?answer=zip")
  zipped = zipfile.ZipFile(io.BytesIO(packed))
  assert set(zipped.namelist()) == {*sent, "predictions.csv"}
  for name, data in sent.items():
    for got in (data, zipped.read(name)):
      if name.endswith(".png"):
        assert got == (tmp_path / "out" / name).read_bytes()
      else:
        wanted = nibabel.load(tmp_path / "out" / name)
        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(got))
        np.testing.assert_array_equal(image.get_fdata(), wanted.get_fdata())
        np.testing.assert_array_equal(image.affine, wanted.affine)
  assert not list(drop_folder.iterdir())


def test_the_view_is_the_map_as_radiologists_look(app, scan, tmp_path):
  _, found = asking.post(app, scan, "?include=view")
  view, (depth, height, width) = found["view"], found["view"]["shape"]
  read = lambda name, kind: np.frombuffer(gzip.decompress(base64.b64decode(view[name])), kind).reshape(
      depth, height, width)
  mask, levels, image = read("mask", np.uint8), read("levels", "<u2"), read("image", np.uint8)
  assert mask.sum() == found["row"]["mask_voxels"] > 0 and view["sides"] and found["files"] == []
  maps = view["low"] + levels / 65535 * (view["high"] - view["low"])
  assert maps.max() == pytest.approx(found["row"]["map_max"])
  assert view["first"] == found["row"]["highest_slice"]
  assert (image[1] > 200).any() and set(np.flatnonzero(mask.any((1, 2)))) == {1}
  stored = np.asarray(nibabel.load(tmp_path / "in/p1_flair.nii.gz").dataobj)[..., 1] >= 950
  turned = stored[::-1, :].T  # R of the affine grows with x: turned to L, then rows are y
  assert (image[1][turned] == 255).all() and view["pixel"] == pytest.approx([1.3, 0.7], abs=0.01)
  assert view["ml"] == pytest.approx(0.7 * 1.3 * 4.5 / 1000)


def test_a_threshold_of_ones_own_and_force(app, served_run, scan, tmp_path):
  (row,) = go(served_run, tmp_path / "in", tmp_path / "out", **{"predict.threshold": 0.2})
  _, found = asking.post(app, scan, "?threshold=0.2&force=true")
  assert found["threshold"] == 0.2 and found["row"]["mask_voxels"] == row["mask_voxels"]
  _, found = asking.post(app, scan, "?threshold=9")
  assert found["row"]["mask_voxels"] == 0
  assert asking.post(app, scan)[1]["threshold"] == calibration.read(served_run)["threshold"]


@pytest.mark.parametrize("files,query,status,words", [
    ([("notes.txt", b"hello")], "", 415, "notes.txt: no scan and no image; send NIfTI"),
    ([("p1_flair.nii.gz", b"\x1f\x8b broken")], "", 422, "p1_flair.nii.gz"),
    ([], "", 400, "no file"),
    ([("..", b"x")], "", 400, "'..' is no name of a file"),
    ([("a/x.png", b"1"), ("b\\X.png", b"2")], "", 400, "two files are called X.png"),
    ([("a.png", b"1")], "?include=all", 400, "include is files, view"),
    ([("a.png", b"1")], "?threshold=nan", 400, "threshold a number"),
    ([("a.png", b"1")], "?threshold=much", 400, "threshold: Input should be a valid number"),
    ([("a.png", b"1")], "?treshold=0.2", 400,
     "nothing reads 'treshold': threshold, include, answer, force are"),
    ([("a.png", b"1")], "?threshold=0.2&threshold=0.9", 400, "'threshold' is there twice"),
    ([("a.nii", b"0" * 2**20)], "", 413, "more than 1 MiB: start the server with a larger --max_mb"),
])
def test_errors_are_one_line_with_their_status(app, drop_folder, files, query, status, words):
  got, found = asking.post(app, files, query)
  assert got == status == found["status"] and words in found["detail"], found
  assert "\n" not in found["detail"] and str(drop_folder) not in found["detail"]
  assert not list(drop_folder.iterdir())


def test_fields_that_nothing_reads_are_refused(app, scan):
  """A threshold among the files was overlooked: the mask was that of another one."""
  headers, body = asking.form(scan)
  note = b'--x\r\ncontent-disposition: form-data; name="threshold"\r\n\r\n0.1\r\n'
  headers["content-length"] = str(len(note + body))
  status, _, data = asking.ask(app, "POST", "/api/score", headers, [note + body])
  assert status == 400 and "nothing reads the field 'threshold': files go" in data.decode()
  other = body.replace(b'name="file"', b'name="scan"')
  status, _, data = asking.ask(app, "POST", "/api/score", asking.form(scan)[0], [other])
  assert status == 400 and "nothing reads the field 'scan'" in data.decode()


def test_what_readers_doubt_is_in_the_answer(app, scan):
  """It stood in the log, which a server has not."""
  assert asking.post(app, scan)[1]["warning"] == ""
  twice = [(name, scan[0][1]) for name, _ in scan]
  found = asking.post(app, twice)[1]["warning"]
  assert found == f"{scan[0][0]} and {scan[1][0]} hold the same voxels, as flair and as t1: is one a copy " \
                  "under the wrong name?"


def test_two_scans_and_a_missing_modality_are_refused(app, drop_folder, scan, tmp_path):
  got, found = asking.post(app, scan[:1])
  assert got == 422 and "scan p1 has no t1 volume" in found["detail"]
  got, found = asking.post(app, [*scan, *[(n.replace("p1", "p2"), c) for n, c in scan]])
  assert got == 422 and "holds 2 inputs where 1 was asked for" in found["detail"]
  picture = io.BytesIO()
  Image.new("L", (20, 16)).save(picture, "PNG")
  got, found = asking.post(app, [("slice.png", picture.getvalue())])
  assert got == 422 and not list(drop_folder.iterdir())


def packed(files):
  data = io.BytesIO()
  with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as out:
    for name, content in files:
      out.writestr(name, content)
  return data.getvalue()


def flipped(data, at):
  return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


def test_dicom_series_as_files_and_as_a_zip(app, drop_folder, tmp_path):
  """Two series whose files have the same names, as a browser sends dropped folders, or packed with them."""
  for modality, volume in zip(("flair", "t1"), brain(), strict=True):
    series.write(tmp_path / modality, volume, rotated(), SeriesDescription=modality)
  files = [(str(p.relative_to(tmp_path)), p.read_bytes()) for p in sorted(tmp_path.rglob("*.dcm"))]
  assert len({n.rpartition("/")[2] for n, _ in files}) < len(files)
  status, one = asking.post(app, files, "?include=files")
  assert status == 200 and one["row"]["mask_voxels"] > 0, one
  litter = [("__MACOSX/flair/._IM0003.dcm", b"x"), (".DS_Store", b"x")]
  status, other = asking.post(app, [("study.zip", packed([*files, *litter]))])
  assert status == 200 and other["row"] == one["row"]
  assert not list(drop_folder.iterdir())


@pytest.mark.parametrize("data,status,words", [
    (lambda: b"PK no zip", 422, "a.zip cannot be unpacked (File is not a zip file): send its files"),
    (lambda: packed([]), 415, "a.zip is empty"),
    (lambda: flipped(packed([("a.nii", bytes(range(200)))]), 60), 422, "a.nii is damaged in its .zip"),
    (lambda: packed([("../../a.nii", b"x")]), 422, "a.nii"),
    (lambda: packed([("a.nii", bytes(2**21))]), 413, "a.zip holds 1 files of 2 MiB: at most 5000 and 1 MiB"),
    (lambda: packed([("a.png", b"1"), ("b/a.png", b"2")]), 400, "two files are called a.png"),
    (lambda: packed([("notes.txt", b"hello")]), 415, "notes.txt: no scan and no image")])
def test_a_zip_that_is_refused(app, drop_folder, data, status, words):
  got, found = asking.post(app, [("a.zip", data())])
  assert got == status and words in found["detail"] and not list(drop_folder.iterdir())


def test_a_body_without_a_length_is_counted(app):
  head, body = asking.form([("a.nii", b"0" * 2**20)])
  del head["content-length"]
  pieces = [body[i:i + 2**18] for i in range(0, len(body), 2**18)]
  status, _, data = asking.ask(app, "POST", "/api/score", head, pieces)
  assert status == 413 and json.loads(data)["status"] == 413


def test_a_form_cut_off_is_not_scored_without_its_last_files(app, drop_folder, scan):
  """The parts that had come counted as the whole scan: of a series the last slices were missing unsaid."""
  given, body = asking.form([*scan, ("readme.txt", b"last")])
  del given["content-length"]
  for cut, status in ((0, 200), (2, 200), (3, 400), (9, 400), (40, 400)):
    found, _, data = asking.ask(app, "POST", "/api/score", given, [body[:150], body[150:len(body) - cut]])
    assert found == status and (status == 200 or b"end in the middle" in data)
  upper = {**given, "content-type": 'Multipart/Form-Data; charset=utf-8; boundary="x"'}
  assert asking.ask(app, "POST", "/api/score", upper, [body])[0] == 200 and not list(drop_folder.iterdir())


def test_other_addresses_and_the_schema(app):
  assert asking.ask(app, "GET", "/nowhere")[0] == 404
  status, _, data = asking.ask(app, "DELETE", "/api/score")
  assert status == 405 and b"DELETE is not for /api/score" in data
  assert asking.ask(app, "POST", "/api/score", {"content-type": "text/plain"})[0] == 415
  assert json.loads(asking.ask(app, "GET", "/health")[2]) == {"status": "ready", "waiting": 0}
  info = json.loads(asking.ask(app, "GET", "/api/info")[2])
  assert info["modalities"] == ["flair", "t1"] and info["max_bytes"] == 2**20 and len(info["colours"]) == 256
  schema = json.loads(asking.ask(app, "GET", "/openapi.json")[2])
  assert set(schema["paths"]) == {"/health", "/api/info", "/api/score"}
  assert {"200", "400", "413", "415", "422", "503"} <= set(schema["paths"]["/api/score"]["post"]["responses"])


# ------------------------------------------------------------------------------- with a function of our own
def made(score, parent, waiting=1):
  info = answers.Info(
      version="0", run="r", method="m", task="anomaly", checkpoint="", trained_on="", modalities=[],
      reads=[".png"], threshold=None, calibration="", max_bytes=2**20, max_waiting=waiting, colours=[])
  return application.make(score, info, {"127.0.0.1"}, parent=parent)


def test_a_fault_is_said_and_leaves_nothing(tmp_path, capsys):
  def broken(source, out, changed, view):
    assert (source / "a.png").read_bytes() == b"1"
    raise ZeroDivisionError("by nothing")
  app = made(broken, tmp_path)
  with pytest.raises(ZeroDivisionError):  # the server's log has it as well
    asking.post(app, [("a.png", b"1")])
  assert "by nothing" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_one_at_work_one_waiting_and_no_more(tmp_path):
  go_on, at_work = threading.Event(), []

  def slow(source, out, changed, view):
    at_work.append(source)
    assert len([p for p in at_work if p.exists()]) == 1  # never two at once
    go_on.wait(20)
    raise Problem(422, f"done {len(at_work)}")

  async def many(app):
    head, body = asking.form([("a.png", b"1")])
    asks = [asyncio.create_task(asking._ask(app, "POST", "/api/score", head, [body])) for _ in range(3)]
    while not at_work:
      await asyncio.sleep(0.01)
    status, headers, _ = await asking._ask(app, "POST", "/api/score", head, [body])
    go_on.set()
    return (status, headers["retry-after"]), sorted([(await a)[0] for a in asks])
  refused, others = asyncio.run(many(made(slow, tmp_path)))
  assert refused == (503, "5") and others == [422, 422, 503] and len(at_work) == 2
  assert not list(tmp_path.iterdir())


def test_what_a_killed_server_has_left_goes_at_the_next_start(served_run, tmp_path):
  left = tmp_path / f"{application.PREFIX}dead"
  (left / "scan").mkdir(parents=True)
  (left / "scan/p1_flair.nii.gz").write_bytes(b"a patient")
  (tmp_path / "other").mkdir()
  with scratch.folder(tmp_path, application.PREFIX) as alive:
    serve.make_app(served_run, parent=tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([alive, tmp_path / "other"])


def test_names_lose_their_folders():
  assert uploads.plain_name("C:\\scans\\p1.dcm") == uploads.plain_name("/a/../p1.dcm") == "p1.dcm"
  for name in ("", "/", "a\nb.png", "x" * 201):
    with pytest.raises(Problem, match="is no name of a file"):
      uploads.plain_name(name)


def test_the_command_line_says_what_is_wrong_before_it_loads(served_run, tmp_path):
  code, said = console.call("--mode=serve", f"--workdir={served_run}", "--host=0.0.0.0")
  assert code == 1 and said == (
      "medae_jax: error: --host=0.0.0.0 is reached by other computers, and whoever reaches it may use the "
      "model: --open_to_network says that this is meant\n")
  code, said = console.call("--mode=serve", f"--workdir={tmp_path}")
  assert code == 1 and "holds no config.json" in said
  code, said = console.call("--mode=report", f"--workdir={tmp_path / 'nowhere'}")
  assert code == 1 and "nowhere': --mode=report reads sweeps" in said
  with pytest.raises(UserError, match="--mode=report reads sweeps"):  # before what takes seconds to import
    cli.check_paths("report")


@pytest.mark.parametrize("name, value", [
    ("batch_size", 0), ("threshold", float("nan")), ("overlay_slices", -1)])
def test_fields_of_predict_are_checked_before_the_first_request(served_run, tmp_path, name, value):
  with pytest.raises(UserError, match=f"config.predict.{name}="):
    serve.make_app(served_run, {f"predict.{name}": value}, parent=tmp_path)


def test_a_taken_port_and_a_missing_package_are_one_line(served_run, monkeypatch):
  import socket
  with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="choose another one"):
    serve.serve(served_run, port=taken.getsockname()[1])
  monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
  with pytest.raises(UserError, match=r'needs uvicorn: pip install "medae-jax\[serve\]"'):
    serve.make_app(served_run)
