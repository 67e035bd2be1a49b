"""What an export takes from its run: checkpoint, step, stage, networks of the score, fields, records."""

import json
import types

from jax import export as jax_export
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from medae_jax import export
from medae_jax.core import artefact, checkpoint, files, trained
from medae_jax.core.errors import UserError
from medae_jax.core.exported import onnx, opened
from medae_jax.core.method import Need, State
from medae_jax.core.trained_on import record
from tests.unit import known_maps
from tests.unit.core.test_trained_on import rays

STEP = 7


class Stepped(known_maps.Method):
  """map = gain * image + step, as of a network that fades in; a second network is of training alone."""
  needs = {"image": Need("BHWC", low=0), "clean": Need("BHWC", low=-1, high=1)}  # the second of training, too

  def score(self, state, batch):
    found = super().score(state, batch)
    return {**found, "map": found["map"] + state.step, "score": found["score"] + state.step}

  def inference_state(self, state):
    return state.replace(params={"net": state.params["net"]})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run at step 7 of its second stage, which has images of another size than the first."""
  c, folder = known_maps.config(""), tmp_path_factory.mktemp("run")
  c.method.name = "tests.unit.commands.test_export_by_hand:Stepped"
  c.model.norm_kernel = "measured"
  files.write_json(folder / "config.json", c.to_dict())
  files.write_json(folder / "calibration.json", {"threshold": 0.5, "components": 2})
  record.write(folder, rays(size=(8, 6)))
  state = State.create({"net": {"gain": jnp.float32(3)}, "critic": {"w": jnp.ones(2)}}).replace(
      step=jnp.int32(STEP))
  saver = checkpoint.Checkpoints(folder)
  saver.save("best", state, {"stage": "large", "best": None, "checksum": checkpoint.checksum(state.params),
                             "batches": {"small": {"image": [[4, 4, 4, 1], "float32"]},
                                         "large": {"image": [[4, 8, 6, 1], "float32"]}}})
  saver.close()
  return folder


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
  return export.export(run, tmp_path_factory.mktemp("place") / "out", overrides={"predict.force": True})


def test_the_program_is_the_score_of_the_newest_stage_at_its_step(exported):
  manifest = json.loads((exported / "manifest.json").read_text())
  assert manifest["checkpoint"] == {"which": "best", "step": STEP} and manifest["calibrated"]
  assert manifest["inputs"]["image"]["shape"] == ["b", "8", "6", "1"] and set(manifest["inputs"]) == {"image"}
  assert manifest["needs"] == {k: str(v) for k, v in Stepped.needs.items()} and len(manifest["needs"]) == 2
  assert set(manifest["parity"]) == {"map", "recon", "score"} and max(manifest["parity"].values()) < 1e-5
  image = np.random.default_rng(0).random((3, 8, 6, 1), np.float32)
  for found in (export.load(exported)({"image": image}), opened.load(exported).score(image)):
    np.testing.assert_allclose(found["map"], 3 * image + STEP, rtol=1e-6)
  assert opened.load(exported).image_shape == (8, 6, 1)
  assert opened.load(exported).checkpoint == "best checkpoint, step 7"
  with np.load(exported / "weights.npz") as weights:
    assert weights.files == ["params/net/gain"]  # no network of training alone
  readme = (exported / "README.txt").read_text()
  assert "checkpoint of step 7" in readme and "chosen on the validation split" in readme
  assert "run_exported.py" in readme and "run_onnx.py" not in readme


def test_all_that_decides_results_goes_along_and_can_be_read_by_another_user(run, exported):
  for name in ("calibration.json", record.FILE):
    assert (exported / name).read_bytes() == (run / name).read_bytes()
  sums = json.loads((exported / "manifest.json").read_text())["files"]
  assert set(sums) == {"score.stablehlo", "weights.npz", "config.json", "calibration.json", "trained_on.json",
                       "run_exported.py"}
  assert len(set(sums.values())) == len(sums) and all(len(v) == 64 for v in sums.values())
  assert {p.stat().st_mode & 0o777 for p in exported.iterdir()} == {0o644}


def test_insisting_is_of_the_command_and_kernels_of_one_device_are_left_out(exported):
  """Who scores with the export insists himself."""
  written = json.loads((exported / "config.json").read_text())
  assert written["predict"]["force"] is False and written["model"]["norm_kernel"] == "plain"
  assert opened.load(exported, {"predict.force": True}).config.predict.force is True


def test_an_opened_export_changes_in_its_fields_of_predict_alone_and_compiles_once(exported):
  found = opened.load(exported)
  program = found.score_fn
  again = found.override({"predict.threshold": 0.25})
  assert again.score_fn is program and again.config.predict.threshold == 0.25
  assert found.config.predict.threshold == 0
  with pytest.raises(UserError, match="config.eval.components changes in the workdir"):
    found.override({"predict.threshold": 0.25, "eval.components": 3})


def test_what_an_export_is_scored_with_is_held_against_its_training_and_its_thresholds(exported, monkeypatch):
  seen = []
  monkeypatch.setattr(opened.changed, "check", lambda *a, **k: seen.append((a, k)))
  monkeypatch.setattr(opened.changed, "check_calibration", lambda *a: seen.append(a))
  found = opened.load(exported, {"predict.orientation": "RAS"})
  ((trained_with, asked), options), (config, calibration, before) = seen
  assert (trained_with.predict.orientation, asked.predict.orientation) == ("", "RAS")
  assert options == {"splits": False} and config.predict.orientation == before.predict.orientation == "RAS"
  assert calibration == found.calibration == {"threshold": 0.5, "components": 2}


def test_fields_that_say_what_is_exported_are_checked_as_those_of_the_run(run, tmp_path, monkeypatch):
  seen, load = [], trained.load
  monkeypatch.setattr(trained, "load", lambda *a, **k: seen.append((a, k)) or load(*a, **k))
  written = []

  def write(folder, run_folder, run, weights, inputs, formats):
    written.append((dict(run.config.export), {k: v.shape[1:] for k, v in inputs.items()}, formats))
    (folder / "inner").mkdir()
    (folder / "inner/x").write_bytes(b"")
    (folder / "inner").chmod(0o700)
    return {"files": {}, "parity": None, "parity_onnx": None}
  monkeypatch.setattr(export, "_write", write)
  out = export.export(run, tmp_path / "out", ("weights",), {"export.image_size": (16, 12)})
  assert seen == [((run, {"export.image_size": (16, 12), "export.formats": ("weights",)}), {"splits": True})]
  assert written[0][1] == {"image": (16, 12, 1)} and tuple(written[0][2]) == ("weights",)
  assert (out / "inner").stat().st_mode & 0o777 == 0o755
  assert export.export(run).name == "export" and written[1][1] == {"image": (8, 6, 1)}  # in its own folder
  assert tuple(written[1][2]) == ("stablehlo", "weights") == tuple(written[1][0]["formats"])
  export.export(run, tmp_path / "other", overrides={
      "export.image_size": 16, "export.formats": ("safetensors",)})
  assert written[2][1] == {"image": (16, 16, 1)} and tuple(written[2][2]) == ("safetensors",)


def test_a_program_that_gives_other_numbers_is_refused_beyond_rounding(tmp_path, monkeypatch):
  """1e-4 of the output's range, of at least 1."""
  score = lambda weights, batch: {"map": 50 * batch["image"], "score": batch["image"].sum((1, 2, 3))}
  inputs = {"image": types.SimpleNamespace(shape=(None, 4, 4, 1), dtype=np.dtype(np.float32))}
  config = types.SimpleNamespace(method=types.SimpleNamespace(name="x"))
  for off, refused in ((0.0, False), (0.9 * 1e-4 * 48, False), (1.1 * 1e-4 * 50, True)):
    def loaded(folder, off=off):
      return lambda batch: {k: np.asarray(v) + off * (k == "map") for k, v in score({}, batch).items()}
    monkeypatch.setattr(export, "load", loaded)
    if refused:
      with pytest.raises(UserError, match="differs from score by .* in 'map'"):
        export._parity(tmp_path, config, score, {}, inputs)
    else:
      worst = export._parity(tmp_path, config, score, {}, inputs)
      assert worst["map"] == pytest.approx(off, abs=1e-5) and worst["score"] < 1e-5


def test_a_config_may_change_in_predict_and_nowhere_else():
  first = {"predict": {"threshold": 1}, "data": {"unit": "x"}, "method": {"a": 1}, "eval": {"components": 2}}
  same = artefact.fixed_fields(first)
  assert artefact.fixed_fields({**first, "predict": {"threshold": 2}}) == same
  for group in ("data", "method", "eval"):
    assert artefact.fixed_fields({**first, group: {}}) != same


def test_what_cannot_be_kept_as_numbers_is_refused():
  with pytest.raises(UserError, match="params/net/name is <U1: export keeps numbers only"):
    export._weights(State.create({"net": {"name": np.array(["x"])}}))


@pytest.mark.parametrize("kind, data, inputs, outputs, written", [
    ("anomaly", {"name": "brats", "modalities": ("flair",)}, ("image",), ("map", "score"), ("brats", True)),
    ("anomaly", {"name": "natural"}, ("image",), ("map", "score"), ("natural", False)),
    ("segmentation", {"name": "natural"}, ("image",), ("map", "score"), None),
    ("anomaly", {"name": "natural"}, ("image",), ("score",), None),
    ("anomaly", {"name": "natural"}, ("image", "mask"), ("map",), None),
    ("anomaly", {"name": "mine"}, ("image",), ("map",), None)])
def test_the_preparation_of_files_goes_with_maps_of_single_images(
    monkeypatch, kind, data, inputs, outputs, written):
  seen = []
  monkeypatch.setattr(export.preparation, "write", lambda folder, *given: seen.append(given) or ["numpy"])
  run = types.SimpleNamespace(config=ml_collections.ConfigDict({"eval": {"kind": kind}, "data": data}))
  found = export._preparation(None, run, dict.fromkeys(inputs), dict.fromkeys(outputs))
  assert (seen, found) == (([written], ["numpy"]) if written else ([], []))


def test_smaller_files_are_measured_against_the_exact_one(monkeypatch, tmp_path):
  seen = []
  monkeypatch.setattr(export.precision, "write", lambda folder, kind: folder / kind)
  monkeypatch.setattr(export.measured, "measure",
                      lambda config, paths, size: seen.append((paths, size)) or {})
  export._smaller(tmp_path, None, {"image": 0}, ["onnx_fp16", "onnx_int8"], 8)
  assert seen == [([tmp_path / n for n in ("score.onnx", "onnx_fp16", "onnx_int8")], 8)]
  found = export._smaller(tmp_path, None, {"image": 0, "mask": 0}, ["onnx_int8"], 8)
  assert found == {"not_measured": "the score reads image, mask"} and len(seen) == 1


def test_a_program_goes_with_its_weights_and_weights_go_alone(run, tmp_path):
  for formats, files_of in ((("stablehlo",), {"score.stablehlo", "weights.npz", "run_exported.py"}),
                            (("weights",), {"weights.npz"})):
    out = export.export(run, tmp_path / formats[0], formats)
    found = {p.name for p in out.iterdir()} - {"config.json", "calibration.json", "trained_on.json",
                                               "manifest.json", "README.txt"}
    assert found == files_of


@pytest.mark.parametrize("at_once, size", [(1, 1), ("any", 8)])
def test_a_file_of_one_image_at_a_time_is_measured_so(run, tmp_path, monkeypatch, at_once, size):
  seen = []
  monkeypatch.setattr(export.onnx, "write", lambda *_: ({"map": 0.0}, at_once))
  monkeypatch.setattr(export, "_smaller", lambda folder, config, inputs, kinds, n: seen.append((kinds, n)))
  out = export.export(run, tmp_path / "out", ("onnx_int8",))
  assert seen == [(["onnx_int8"], size)]
  manifest = json.loads((out / "manifest.json").read_text())
  assert manifest["batch_onnx"] == at_once and manifest["parity"] is None
  assert manifest["parity_onnx"] == {"map": 0.0} and "weights.npz" not in manifest["files"]


@pytest.mark.parametrize("size, sides", [(0, [8, 6]), ((), [8, 6]), (12, [12, 12]), ((10, 4), [10, 4])])
def test_an_export_reads_what_the_score_needs_and_no_more(size, sides):
  """A training batch may have more than that, in streams of its own; labels have no sides to change."""
  method = types.SimpleNamespace(score_needs=("image", "age"), needs={"image": 1, "age": 1, "clean": 1})
  c = ml_collections.ConfigDict({"method": {"name": "m"}})
  info = {"stage": "large", "batches": {"small": {}, "large": {
      "noisy": {"image": [[4, 8, 6, 1], "float32"], "clean": [[4, 8, 6, 1], "float32"]},
      "age": [[4], "int32"]}}}
  found = export._inputs(c, method, info, size)
  assert {k: ([str(d) for d in v.shape], str(v.dtype)) for k, v in found.items()} == {
      "image": (["b", *map(str, sides), "1"], "float32"), "age": (["b"], "int32")}
  with pytest.raises(UserError, match="does not tell the shape of 'image', which m needs to score"):
    export._inputs(c, method, {**info, "stage": "small"}, size)


@pytest.mark.parametrize("word, made", [("savedmodel", True), ("saved_model", True), ("weights", False)])
def test_both_words_for_a_saved_model_write_one(run, tmp_path, monkeypatch, word, made):
  """docs/export.md has the first, older configs the second."""
  folders = []
  monkeypatch.setattr(artefact, "write_saved_model", lambda folder, *_: folders.append(folder.name))
  export.export(run, tmp_path / "out", formats=(word,), overrides={"predict.force": True})
  assert folders == ["saved_model"] * made


# ------------------------------------------------------------- what jax2onnx is given in JAX's place
@pytest.mark.parametrize("widths", [((0, 0), (1, 2)), ((2, 0), (0, 0)), ((0, 3), (4, 0)), ((0, 0), (0, 0))])
def test_borders_that_are_taken_are_those_that_are_repeated(widths):
  array = np.arange(6.0).reshape(2, 3)
  padded = onnx._padded(lambda *args, **more: "jax's own")
  np.testing.assert_array_equal(padded(array, widths, mode="edge"), np.pad(array, widths, "edge"))
  assert padded(array, widths) == padded(array, widths[:1], mode="edge") == "jax's own"


def test_rows_that_are_taken_are_those_that_are_repeated():
  array = np.arange(6.0).reshape(2, 3)
  repeated = onnx._repeated(lambda *args, **more: "jax's own")
  for axis in (0, 1):
    np.testing.assert_array_equal(repeated(array, 2, axis), np.repeat(array, 2, axis))
  assert repeated(array, 2) == repeated(array, [1, 2], 0) == "jax's own"


def test_short_loops_are_repetitions_and_others_are_left_to_jax():
  given = []
  scan = onnx._unrolled(lambda *args, **more: given.append((args, more)) or "jax's own")
  step = lambda carry, x: (2 * carry + 1, None)
  assert scan(step, 1, length=3) == (15, None) and not given
  assert scan(step, 1, [5], 1, reverse=True) == "jax's own"
  assert given == [((step, 1, [5], 1), {"reverse": True})]
  assert scan(step, 1, length=onnx._SHORT + 1) == "jax's own"
  with pytest.raises(NotImplementedError, match="collects"):
    scan(lambda carry, x: (carry, carry), 1, length=2)


def test_the_page_of_an_export_says_whether_there_are_thresholds(exported):
  manifest = json.loads((exported / "manifest.json").read_text())
  for calibrated, said in ((True, "chosen on the validation split"), (False, "absent: evaluate had not run")):
    text = artefact.readme({**manifest, "calibrated": calibrated})
    assert f"calibration.json: {said}" in " ".join(text.split()).replace("thresholds and colour scales ", "")
  assert f"checkpoint of step {STEP}" in text


def test_programs_are_for_all_platforms_that_the_page_names(exported, monkeypatch, tmp_path):
  """An export is made on a laptop and run on a GPU."""
  named = json.loads((exported / "manifest.json").read_text())["platforms"]
  program = jax_export.deserialize(bytearray((exported / "score.stablehlo").read_bytes()))
  assert list(program.platforms) == named == ["cpu", "cuda", "tpu"]
  pytest.importorskip("tensorflow")
  from jax.experimental import jax2tf

  def convert(score, **given):
    raise InterruptedError(given["native_serialization_platforms"], given["polymorphic_shapes"])
  monkeypatch.setattr(jax2tf, "convert", convert)
  image = types.SimpleNamespace(shape=("b", 4, 3, 1), dtype=np.float32)
  with pytest.raises(InterruptedError) as seen:
    artefact.write_saved_model(tmp_path, len, {"w": np.ones(1, np.float32)}, {"image": image}, named)
  assert seen.value.args == (named, [None, {"image": "b, 4, 3, 1"}])
