"""A published checkpoint {model_weights, optimizer_weights, epoch} becomes a workdir that scores as it."""

import json

import jax
import numpy as np
import pytest

from configs import morphaeus_cxr
from medae_jax import convert
from medae_jax.core import trained
from tests.golden_cases import file_cases
from tests.parity.dpa_golden import nhwc
from tests.parity.morphaeus import networks as golden
from tests.unit.weights import torch_files

COMPILED_FAST = True  # LLVM's passes take longer than the few steps


@pytest.mark.parametrize("file", file_cases("morphaeus", "model_*.npz"))
def test_a_converted_checkpoint_reconstructs_what_the_reference_does(file, tmp_path):
  z = np.load(file)
  c, tensors = json.loads(str(z["config"])), golden.sub(z, "sd/")
  if not tensors or c["norm"] != "batch" or len(set(c["strides"])) > 1:
    pytest.skip("weights in closed form, or a network that the published names do not tell")
  grid = np.zeros((1, 2, *c["inshape"]), np.float32)
  written = {**tensors, "deformer.transformer.grid": grid, "deformer.integrate.transformer.grid": grid}
  torch_files.write_zip(tmp_path / "best_model.pt", {
      "model_weights": written, "optimizer_weights": {"state": {0: {"exp_avg": np.zeros(3, np.float32)}}},
      "epoch": 3})
  config = morphaeus_cxr.get_config("root=nowhere")
  with config.unlocked():
    config.data.channels = c["in_channels"]
    config.model.update(act=golden._ACT.get(c["act"], "swish"), slope=1.0, both=c["bidir"], norm="frozen",
                        upsampling="resize" if c["deconv_mode"] == "stride" else "transposed")
  convert.convert(tmp_path / "best_model.pt", config, tmp_path / "run")
  run = trained.load(tmp_path / "run")
  assert run.config.model.levels == c["nr_ref_channels"] and run.config.data.image_size == c["inshape"][0]
  recon = jax.jit(run.method.score)(run.state, {"image": nhwc(z["x"])})["recon"]
  np.testing.assert_allclose(recon, nhwc(z["eval/y_source"]), atol=1e-4)
