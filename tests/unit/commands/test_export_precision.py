"""score_fp16.onnx and score_int8.onnx of a model of one layer, written and run by onnxruntime itself."""

import importlib
import logging
import os

import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.core.exported import precision

WEIGHTS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


@pytest.fixture
def package(tmp_path):
  """onnx, and map = image @ WEIGHTS as score.onnx; skipped without onnxruntime, but not in CI."""
  need = importlib.import_module if os.environ.get("CI") else pytest.importorskip
  need("onnxruntime")
  onnx = need("onnx")
  make, real = onnx.helper, onnx.TensorProto.FLOAT
  graph = make.make_graph(
      [make.make_node("MatMul", ["image", "w"], ["map"])], "score",
      [make.make_tensor_value_info("image", real, ["B", 3, 6])],
      [make.make_tensor_value_info("map", real, ["B", 3, 4])], [onnx.numpy_helper.from_array(WEIGHTS, "w")])
  onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 21)], ir_version=10),
            str(tmp_path / "score.onnx"))
  return onnx


@pytest.mark.parametrize("kind, name, weight, most", [("onnx_fp16", "score_fp16.onnx", "FLOAT16", 4e-3),
                                                      ("onnx_int8", "score_int8.onnx", "UINT8", 0.1)])
def test_each_file_is_of_the_precision_of_its_name(package, tmp_path, caplog, kind, name, weight, most):
  path = precision.write(tmp_path, kind)
  assert path == tmp_path / name and path.is_file()
  model = package.load(str(path))
  weights = [w for w in model.graph.initializer if w.dims == [6, 4]]
  assert [package.TensorProto.DataType.Name(w.data_type) for w in weights] == [weight]
  image = np.random.default_rng(1).random((2, 3, 6), np.float32)
  found = precision.run(path, {"image": image})["map"]
  assert found.dtype == np.float32
  apart = np.abs(found - image @ WEIGHTS).max()
  assert 0 < apart < most
  assert precision.run(path, {})["map"].shape == (1, 3, 4)
  # onnxruntime advises on every model to pre-process it; other lines are kept, and the filter goes.
  assert "pre-processing" not in caplog.text
  logging.getLogger().warning("pre-processing")
  assert "pre-processing" in caplog.text
  said = (logging.makeLogRecord({"msg": m}) for m in ("run pre-processing", "odd"))
  assert [precision._quiet(line) for line in said] == [False, True]


def test_a_file_that_does_not_run_is_refused(package, tmp_path, monkeypatch):
  def broken(path, batch):
    raise RuntimeError(f"{path.name} has\nno kernel")
  monkeypatch.setattr(precision, "run", broken)
  for kind, file in precision.FILES.items():
    with pytest.raises(UserError, match=rf"{file} of .*: {file} has no kernel\): leave {kind}"):
      precision.write(tmp_path, kind)
