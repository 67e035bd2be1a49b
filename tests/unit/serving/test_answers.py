"""What a request hands to the score and gets back, with a score that a test wrote; what the page shows."""

import base64
import gzip
import io
import json
import types
import zipfile

import ml_collections
import numpy as np
from PIL import Image
import pytest

from medae_jax import serve
from medae_jax.core import files
from medae_jax.core.errors import UserError
from medae_jax.reporting.results import Score
from medae_jax.serving import answers, app as application
from medae_jax.serving.problems import Problem
from medae_jax.tasks import admit, view as views
from tests.unit.serving import asking


def made(score, parent, waiting=1):
  info = answers.Info(
      version="0", run="r", method="m", task="anomaly", checkpoint="", trained_on="", modalities=[],
      reads=[".png"], threshold=None, calibration="", max_bytes=2**20, max_waiting=waiting, colours=[])
  return application.make(score, info, {"127.0.0.1"}, parent=parent)


def test_what_is_asked_for_reaches_the_score_and_what_it_writes_comes_back(tmp_path):
  seen = []

  def score(source, out, changed, view):
    seen.append((len(list(source.iterdir())), changed, view))
    (out / "inner").mkdir(parents=True)
    for name in ("inner/a_anomaly.tif", "predictions.csv", "predictions.html", "results.csv", "left_out.csv"):
      (out / name).write_bytes(name.encode())
    return answers.Scored(Score(map=None, mask=None, score=0.5, row={"input": "a", "slices": 3}), out)
  app, one = made(score, tmp_path), [("a.png", b"1")]
  status, found = asking.post(app, one, "?threshold=0.2&force=true&include=files,view")
  assert status == 200 and (found["input"], found["score"], found["row"]) == ("a", 0.5, {"slices": 3})
  assert [(f["name"], base64.b64decode(f["base64"])) for f in found["files"]] == [
      ("inner/a_anomaly.tif", b"inner/a_anomaly.tif")]
  zipped = zipfile.ZipFile(io.BytesIO(asking.post(app, one, "?answer=zip&threshold=-0.5")[1]))
  assert set(zipped.namelist()) == {"inner/a_anomaly.tif", "predictions.csv"}
  status, found = asking.post(app, [(f"{i}.png", b"1") for i in range(1200)])  # a long series
  assert status == 200 and found["files"] == []
  assert seen == [(1, {"predict.threshold": 0.2, "predict.force": True}, True),
                  (1, {"predict.threshold": -0.5}, False), (1200, {}, False)]
  assert json.loads(asking.ask(app, "GET", "/health")[2])["waiting"] == 0
  assert {asking.ask(app, "GET", path)[0] for path in ("/docs", "/redoc")} == {404}  # of scripts elsewhere


def test_every_number_of_the_answer_is_that_of_the_score(tmp_path, monkeypatch):
  now = [10.0]
  monkeypatch.setattr(application, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
  shape = (2, 3, 4)
  view = views.View(image=np.arange(24, dtype=np.uint8).reshape(shape), mask=None, low=0.5, high=2.0, top=1.5,
                    levels=(np.arange(24) * 2000).astype(">u2").reshape(shape), first=1, pixel=(0.5, 0.7),
                    sides=True, ml=0.25, thinned=2)

  def score(source, out, changed, wanted):
    now[0] += 2.5
    out.mkdir()
    (out / "a.png").write_bytes(b"12345")
    (out / "b.none").write_bytes(b"")
    row = {"input": "a", "warning": "odd", "slices": 3}
    return answers.Scored(Score(map=None, mask=None, score=0.5, p_value=0.125, verdict="abnormal",
                                threshold=0.75, row=row), out, view if wanted else None)
  _, found = asking.post(made(score, tmp_path), [("a.png", b"1")], "?include=files,view")
  shown = found.pop("view")
  assert [(f["name"], f["type"], f["bytes"]) for f in found.pop("files")] == [
      ("a.png", "image/png", 5), ("b.none", "application/octet-stream", 0)]
  assert found == {"input": "a", "score": 0.5, "p_value": 0.125, "verdict": "abnormal", "threshold": 0.75,
                   "warning": "odd", "row": {"warning": "odd", "slices": 3}, "seconds": 2.5}
  read = lambda name: gzip.decompress(base64.b64decode(shown.pop(name)))
  assert read("image") == bytes(range(24)) and read("levels") == np.arange(0, 48000, 2000, "<u2").tobytes()
  assert shown == {"shape": [2, 3, 4], "mask": None, "low": 0.5, "high": 2.0, "top": 1.5, "first": 1,
                   "pixel": [0.5, 0.7], "sides": True, "ml": 0.25, "thinned": 2}
  for query, kept in (("?include=view", ([], True)), ("?include=files", (["a.png", "b.none"], False))):
    _, found = asking.post(made(score, tmp_path), [("a.png", b"1")], query)
    assert ([f["name"] for f in found["files"]], bool(found["view"])) == kept


def test_no_line_of_an_error_has_a_path_or_what_a_fault_was_about(tmp_path):
  def score(source, out, changed, view):
    raise errors.pop(0)
  app, sent = made(score, tmp_path), []
  errors = [UserError("of the folder"), ZeroDivisionError("patient Smith")]

  async def watched(scope, receive, send):
    async def both(message):
      sent.append(message)
      await send(message)
    await app(scope, receive, both)
  assert asking.post(app, [("a.png", b"1")]) == (
      422, {"status": 422, "error": "cannot be scored", "detail": "of the folder"})
  with pytest.raises(ZeroDivisionError):
    asking.post(watched, [("a.png", b"1")])
  assert sent[0]["status"] == 500 and b"ZeroDivisionError: the server's" in sent[1]["body"]
  assert b"Smith" not in sent[1]["body"]

  def inside(source, out, changed, view):
    raise OSError(f"{source}/a.png is cut short, {out} is full")
  _, found = asking.post(made(inside, tmp_path), [("a.png", b"1")])
  assert found["detail"] == "a.png is cut short, the upload is full"


@pytest.mark.parametrize("error, line", [
    (UserError("odd\nfile"), "odd file"), (Problem(415, "no scan"), "no scan"),
    (OSError("cut short"), "cut short"), (EOFError(), "EOFError"), (MemoryError(), "MemoryError")])
def test_what_a_file_can_cause_is_no_fault_of_the_server(tmp_path, error, line):
  """A cut file raises EOFError, a header that claims too much MemoryError."""
  def score(source, out, changed, view):
    raise error
  status, found = asking.post(made(score, tmp_path), [("a.png", b"1")])
  assert (status, found["detail"]) == (getattr(error, "status", 422), line) and status == found["status"]
  assert not list(tmp_path.iterdir())


def test_where_too_many_wait_no_body_is_read(tmp_path):
  app, read = made(None, tmp_path, waiting=-1), []

  async def watched(scope, receive, send):
    async def counted():
      read.append(1)
      return await receive()
    await app(scope, counted, send)
  status, found = asking.post(watched, [("a.png", b"1")])
  assert status == found["status"] == 503 and not read


def test_a_form_may_have_other_fields_beside_its_files(tmp_path):
  head, body = asking.form([("a.png", b"1")])
  body = b'--x\r\ncontent-disposition: form-data; name="note"\r\n\r\nleft\r\n' + body
  score = lambda source, out, *_: answers.Scored(
      Score(map=None, mask=None, score=float(len(list(source.iterdir()))), row={}), out)
  status, _, data = asking.ask(made(score, tmp_path), "POST", "/api/score",
                               {**head, "content-length": str(len(body))}, [body])
  assert status == 200 and json.loads(data)["score"] == 1


def test_refusals_and_faults_of_predict_are_told_apart(tmp_path, monkeypatch):
  (tmp_path / "in").mkdir()
  (tmp_path / "in/a.png").write_bytes(b"1")
  out = tmp_path / "out"

  def refuse(*_, **__):
    raise UserError(f"a does not fit the model; {admit.INSIST}")

  def broken(*_, **__):
    out.mkdir()
    (out / "errors.log").write_text("Traceback: by nothing")
    raise UserError("1 of 1 inputs failed")
  score = serve._scorer(tmp_path, types.SimpleNamespace())
  for predict, kind, words in ((refuse, Problem, "a does not fit the model; force=true insists"),
                               (broken, RuntimeError, "Traceback: by nothing")):
    monkeypatch.setattr(serve.predict, "predict", predict)
    with pytest.raises(kind, match=words):
      score(tmp_path / "in", out, {}, False)


def test_the_page_says_what_the_run_was_trained_on_and_which_threshold_counts(monkeypatch, tmp_path):
  config = ml_collections.ConfigDict({
      "data": {"modalities": ("flair",)}, "method": {"name": "m"}, "eval": {"kind": "anomaly"},
      "predict": {"threshold": 0.25}})
  run = types.SimpleNamespace(config=config, calibration={"threshold": 0.5}, checkpoint="best")
  monkeypatch.setattr(serve.record, "read", lambda _: types.SimpleNamespace(mark="synthetic"))
  monkeypatch.setattr(serve.calibrate, "explain", lambda known: "in words")
  found = serve._info(tmp_path, run, 7)
  assert (found.trained_on, found.threshold, found.max_bytes) == ("synthetic", 0.25, 7)
  assert ".nii.gz" in found.reads and ".png" in found.reads
  config.predict.threshold, config.data.modalities = 0.0, ()
  found = serve._info(tmp_path, run, 7)
  assert found.threshold == 0.5 and ".nii.gz" not in found.reads


@pytest.mark.parametrize("kind, needs, shape, warmed", [
    ("anomaly", ("image",), (5, 7, 1), [(6, 5, 7, 1)]),
    ("segmentation", ("image",), (5, 7, 1), [(1, 5, 7, 1)]),
    ("restoration", ("image",), (5, 7, 1), []), ("anomaly", ("image", "x"), (5, 7, 1), []),
    ("anomaly", ("image",), None, [])])
def test_the_first_request_does_not_wait_for_a_compiler(kind, needs, shape, warmed):
  seen = []

  class Run:
    config = ml_collections.ConfigDict({"eval": {"kind": kind}, "predict": {"batch_size": 6}})
    image_shape, method = shape, types.SimpleNamespace(score_needs=needs)
    score = staticmethod(lambda batch: seen.append(batch.shape))
    score_fn = property(lambda self: seen.append("made"))
  serve.warm(Run())
  assert seen == [*warmed, "made"]


def test_a_number_is_no_name_of_a_server_of_this_computer(app):
  assert asking.ask(app, "GET", "/health", {"host": "192.168.1.7:8000"})[0] == 421


# ------------------------------------------------------------------------------------------- the view
def shown(tmp_path, maps, kind="anomaly", calibration=None, mask=None):
  Image.fromarray(np.full(maps.shape, 128, np.uint8)).save(tmp_path / "a.png")
  config = ml_collections.ConfigDict({"data": {}, "eval": {"kind": kind}, "predict": {"orientation": ""}})
  return views.of(tmp_path, config, calibration, Score(map=maps, mask=mask, score=1.0))


def test_the_view_of_an_image_is_its_map_thinned_to_what_a_screen_shows(tmp_path):
  maps = np.random.default_rng(0).uniform(0.5, 2.0, (520, 33)).astype(np.float32)
  found = shown(tmp_path, maps, mask=maps > 1)
  assert found.thinned == 2 and found.image.shape == found.levels.shape == (1, 260, 17)
  back = found.low + found.levels[0] / 65535 * (found.high - found.low)
  np.testing.assert_allclose(back, maps[::2, ::2], atol=1e-4)
  np.testing.assert_array_equal(found.mask[0], maps[::2, ::2] > 1)
  assert found.low == 0 and found.top == pytest.approx(np.quantile(maps[::2, ::2], 0.999))
  assert found.first == 0 and found.ml == 0 and not found.sides
  assert shown(tmp_path, maps[:512]).thinned == 1
  below = shown(tmp_path, maps[:8] - 4)
  assert below.low == pytest.approx((maps[:8] - 4).min()) and below.levels.min() == 0
  flat = shown(tmp_path, 0 * maps[:8])
  assert flat.high == 1 and not flat.levels.any()


def test_the_heat_scale_is_that_of_val_and_of_a_probability_one(tmp_path):
  maps = np.full((4, 4), 0.5, np.float32)
  assert shown(tmp_path, maps, calibration={"map_max": 4.0}).top == 4
  assert shown(tmp_path, maps, "segmentation", {"map_max": 4.0}).top == 1


@pytest.mark.parametrize("asked, wanted", [("RAS", "RAS"), ("", "LPS")])
def test_the_view_turns_a_volume_as_predict_does(tmp_path, monkeypatch, asked, wanted):
  config = ml_collections.ConfigDict({"data": {"modalities": ("flair",), "orientation": "LPS"},
                                      "predict": {"orientation": asked}})
  seen = []
  monkeypatch.setattr(views, "_volume", lambda *given: seen.append(given[2]) or 1 / 0)
  with pytest.raises(ZeroDivisionError):
    views.of(tmp_path, config, None, Score(map=np.zeros((2, 2, 2)), mask=None, score=1.0, affine=np.eye(4)))
  assert seen == [wanted]


@pytest.mark.parametrize("rows, reason", [
    (None, ""), ([], ""), ([("a.png", "")], ""), ([("", "no input")], ""),
    ([("a.png", "is no picture")], "a.png: is no picture"),
    ([("a.png", "a.png is damaged")], "a.png is damaged"),
    ([("a.png", ""), ("b.png", "is empty"), ("c.png", "is lost")], "b.png: is empty")])
def test_why_an_input_failed_is_what_its_row_says(tmp_path, rows, reason):
  if rows is not None:
    given = [{"input": name, "error": error} for name, error in rows or [("x", "")]]
    files.write_csv(tmp_path / "predictions.csv", given)
  assert serve._reason(tmp_path) == reason
