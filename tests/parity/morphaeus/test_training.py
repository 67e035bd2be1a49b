"""Training steps of MorphAEus against the golden traces, in float64; losses 1e-5, parameters 2e-5.

Where the batch's statistics normalise, biases of convolutions before a normalisation have no gradient: Adam
moves them by the rounding of their reference; they and the running means are left out, as the README says.
The published warm-up ends after epoch 10; the optimiser of the deformer starts to count there.
"""

import json

import jax
import numpy as np
import pytest

from configs import morphaeus_cxr
from medae_jax.core.method import State, stage_at, stages_of
from medae_jax.methods import morphaeus
from medae_jax.optim import adam
from medae_jax.training import early_stop
from medae_jax.weights import conv_ae as names
from tests.golden_cases import file_cases, golden_dir
from tests.parity.double import double
from tests.parity.dpa_golden import nhwc
from tests.parity.morphaeus import networks as golden

COMPILED_FAST = True  # two programs a case, a few steps


class Trace:
  """A case: its method, and the states and metrics of its steps."""

  def __init__(self, file):
    self.z = np.load(file)
    c = json.loads(str(self.z["config"]))
    per_epoch = c.get("batches_per_epoch", len(self.z["batches"]))
    self.config = golden.config(c, c["bn_mode"], per_epoch, "float64")
    self.method = morphaeus.Method(self.config)
    self.upsampled = ("dec", "deformer") if self.config.model.upsampling == "transposed" else ("deformer",)
    params, stats = self.read("sd/")
    opt = {name: self.method._tx[name].init({n: params[n] for n in group})
           for name, group in morphaeus.GROUPS.items()}
    vgg = {"vgg": {"trunk": double(golden.trunk(self.z))}}
    self.first = State.create({**params, **vgg}, stats, opt).replace(
        step=np.int32(c["start_epoch"] * per_epoch))

  def read(self, prefix):
    return double(names.from_torch(golden.sub(self.z, prefix), self.upsampled))

  def run(self):
    """Yields (state before, state after, metrics) of every recorded step."""
    stages, state = stages_of(self.method), self.first
    step = {s.name: jax.jit(lambda st, b, s=s: self.method.train_step(st, b, None, stage=s, axis_name=None))
            for s in stages}
    batches = self.z["batches"]
    for i in range(len(self.z["mse"])):
      before, stage = state, stages[stage_at(stages, int(state.step))]
      batch = {"image": double(nhwc(batches[i % len(batches)]))}
      state, metrics = step[stage.name](state, batch)
      yield before, state, jax.device_get(metrics)


@pytest.fixture(params=file_cases("morphaeus", "train_*.npz"))
def trace(request, float64):
  return Trace(request.param)


def test_training(trace):
  z, c = trace.z, trace.config
  skip, state = _no_gradient if c.model.norm == "batch" else (lambda path: False), trace.first
  # Batch statistics of the deformer begin with its loss here, with the first epoch there.
  warm = c.model.norm == "batch" and trace.first.step < trace.method.stages()[0].steps
  later = ("deformer",) if warm else ()
  for i, (before, after, metrics) in enumerate(trace.run()):
    state = after
    expected = z["mse"][i] + json.loads(str(z["config"]))["trainer"].get("alfa", 0) * z["pl"][i]
    np.testing.assert_allclose(metrics["rec"], expected, rtol=1e-5, err_msg=f"step {i}")
    np.testing.assert_allclose(trace.method.beta(before.step), z["beta"][i], rtol=1e-6)
    if "ncc" in metrics:
      found = [metrics[k] for k in ("ncc", "ncc_reversed") if k in metrics]
      np.testing.assert_allclose(found, z["ncc_terms"][i][:len(found)], atol=1e-5, err_msg=f"step {i}")
      np.testing.assert_allclose(metrics["smoothness"], z["reg"][i], rtol=1e-5, atol=1e-12)
    if i == 0:
      _gradients(trace, before, after, "grad_step1", skip)
    if "sd_before_deform" in {k.partition("/")[0] for k in z} and i == int(z["first_deform_step_index0"]):
      _parameters(trace, before, "sd_before_deform/", skip, later)
      _gradients(trace, before, after, "grad_first_deform_step", skip)
  _parameters(trace, state, "sd_after/", skip, later)
  if later:
    return
  validate = jax.jit(lambda x: trace.method.eval_step(state, {"image": x}, None)["loss"])
  losses = [validate(double(nhwc(b))) for b in z["val_batches"]]
  tolerance = 5e-4 if c.model.norm == "batch" else 1e-5  # there the free biases move the running means
  np.testing.assert_allclose(np.mean(losses), z["val_loss"][-1], rtol=1e-5, atol=tolerance)


def _no_gradient(path):
  """A convolution's bias before a normalisation, and the running mean that absorbs it."""
  layer, _, part = path.rpartition("/")
  return part == "mean" or (part == "bias" and layer.rpartition("/")[2].startswith("conv"))


def _gradients(trace, before, after, prefix, skip):
  """Of the nets that have one in the file, within 1e-4 of each array's maximum.

  Read off the first moments of Adam, m' = b1 m + (1 - b1) g: in float64 to 13 digits.
  """
  found = golden.sub(trace.z, f"{prefix}/")
  nets = tuple(n for n in morphaeus.NETS if any(k.startswith(names._NAMES[n][0]) for k in found))
  expected, _ = names.from_torch(found, trace.upsampled, nets)
  b1, grads = trace.config.optim.b1, {}
  for group, members in morphaeus.GROUPS.items():
    old, new = (next(s.mu for s in state.opt[group] if isinstance(s, adam.AdamState))
                for state in (before, after))
    grads.update({n: jax.tree.map(lambda m, k: (k - b1 * m) / (1 - b1), old[n], new[n])
                  for n in members if n in nets})
  golden.compare_trees(grads, expected, 1e-4, skip)


def _parameters(trace, state, prefix, skip, without_stats=()):
  params, stats = trace.read(prefix)
  stats = {net: v for net, v in stats.items() if net not in without_stats}
  for got, expected in ((state.params, params), (state.stats, stats)):
    for net in expected:
      leaves = jax.tree_util.tree_flatten_with_path(expected[net])[0]
      for (path, e), g in zip(leaves, jax.tree.leaves(got[net])):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not skip(name):
          np.testing.assert_allclose(g, e, rtol=0, atol=2e-5, err_msg=f"{prefix}{net}/{name}")


def test_schedule():
  """The weight of the smoothness by epoch, and the epoch that first deforms."""
  info = json.loads((golden_dir("morphaeus") / "schedule.json").read_text())
  c = golden.config({"model": {"channels": [4], "strides": [2], "kernel_size": 3, "norm": "batch",
                               "act": "swish", "deconv_mode": "stride", "nr_ref_channels": 1, "bidir": True},
                     "trainer": {"loss": {"class_name": "L2"}, "optimizer_params": {"lr": 1e-3}}},
                    "eval", 7, "float32")
  for case in info["beta_schedule"]:
    c.method.update(beta=float(case["beta_max"]), beta_epochs=case["max_iter"])
    method = morphaeus.Method(c)
    steps = [7 * epoch + 6 for epoch in case["epochs"]]
    np.testing.assert_allclose([float(method.beta(s)) for s in steps], case["beta"], rtol=1e-6)
    stages = stages_of(method)
    assert [stages[stage_at(stages, s)].name == "deform" for s in steps] == case["deformation_loss_on"]


def test_early_stopping():
  """After so many epochs without a gain above a minimum training stops; 1e-8 in the published configs."""
  assert morphaeus_cxr.get_config("root=nowhere").train.early_delta == 1e-8
  for trace in json.loads((golden_dir("morphaeus") / "schedule.json").read_text())["early_stopping"]:
    best, stale, found = None, 0, []
    for value in trace["val_losses"]:
      gain = early_stop.improves(value, best, "min", trace["min_delta"])
      best, stale = (value, 0) if gain else (best, stale + 1)
      stop = early_stop.exhausted(stale, trace["patience"])
      stale *= not stop  # the traces go on
      found.append((stop, stale, best))
    assert found == list(zip(trace["stop"], trace["counter_after"], trace["best_after"], strict=True))
