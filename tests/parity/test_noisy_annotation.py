"""The reweighting step against the published implementation: golden/noisy_annotation, every case.

The vectors were made in float64. Tolerances are relative to the largest absolute value and are
those of the golden README: a few times the float32 noise that the reference itself shows. In
float64 (an own process, since the switch is global) only the float32 rounding of the stored
vectors is left, so that 3e-7 must hold for everything that is stored whole.
"""

import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import noisy_skin
from medae_jax.methods import _reweighting as reweighting
from medae_jax.core import method as method_lib
from medae_jax.tasks.segmentation import evaluator
from medae_jax.weights import noisy_annotation as noisy_annotation_weights
from medae_jax.models import noisy_unet
from tests.golden_cases import golden_dir
from tests.golden_fill import fill

FAMILY = "noisy_annotation"


def cases():
  try:
    folder = golden_dir(FAMILY)
  except pytest.skip.Exception:
    return {}
  return json.loads((folder / "meta.json").read_text(encoding="utf-8"))


def arrays(name):
  with np.load(golden_dir(FAMILY) / f"{name}.npz", allow_pickle=False) as file:
    return {key: file[key] for key in file}


def nhwc(x):
  return np.moveaxis(np.asarray(x), -3, -1)


def nchw(x):
  return np.moveaxis(np.asarray(x), -1, -3)


def error(ours, theirs):
  """Largest absolute difference over the largest absolute value."""
  theirs = np.asarray(theirs, np.float64)
  return float(np.max(np.abs(np.asarray(ours, np.float64) - theirs)) / np.max(np.abs(theirs)))


def config_of(case, **method):
  """The method's config with everything that the case states."""
  config = noisy_skin.get_config("smoke").copy_and_resolve_references()
  with config.unlocked():
    config.model.width = 64 // case["width_divisor"]
    config.model.mean, config.model.std = (0.0,), (1.0,)  # stored images are standardised
    config.optim.lr, config.optim.schedule = case["lr"], "constant"
    config.optim.momentum, config.optim.weight_decay = case["momentum"], case["weight_decay"]
    config.method.track = 0
    config.method.update(method)
  return config


def tensors_of(case):
  return {t["name"]: fill(t["name"], t["shape"], t["kind"], case["fill_seed"],
                          case.get("conv_gain", 1.0)) for t in case["tensors"]}


def torch_layout(params, names):
  """Parameters as arrays in the reference's layout, in the order of `names`."""
  ours = dict(noisy_annotation_weights.layer_names())
  out = []
  for name in names:
    layer, part = name.rsplit(".", 1)
    value = np.asarray(params[ours[layer]]["kernel" if part == "weight" else "bias"])
    if part == "weight":
      value = value.transpose((0, 3, 1, 2) if ours[layer].endswith("_up") else (3, 2, 0, 1))
    out.append(value)
  return out


@functools.lru_cache(maxsize=2)
def run(name, meta="jvp"):
  """All training steps of a case through Method.train_step, with what every step computes inside.

  The change of the parameters is added up apart from them: with the published learning rate it is
  near their float32 resolution.
  """
  case, gold = cases()[name], arrays(name)
  config = config_of(case, meta=meta)
  method = method_lib.load(config)
  stage, = method.stages()
  tensors = tensors_of(case)
  params = jax.tree.map(lambda x: jnp.asarray(x, jax.dtypes.canonicalize_dtype(jnp.float64)),
                        method.from_torch(tensors)[0]["net"])
  tx, _ = method._optimizer(stage)
  state = method_lib.State.create({"net": params}, opt={"net": tx.init(params)})

  @jax.jit
  def step(state, batch):  # one compilation: what is computed twice here is merged there
    clean = lambda p: method._mean_loss(p, batch["clean"], None)[0]
    loss, g = jax.value_and_grad(clean)(state.params["net"])
    grads, _, (relative, u) = method._reweighted(state.params["net"], batch, 1, None)
    updates, _ = tx.update(grads, state.opt["net"], state.params["net"])
    images = (batch["noisy"]["image"], batch["clean"]["image"])
    logits = [method._apply(state.params["net"], image) for image in images]
    new, metrics = method.train_step(state, batch, jax.random.key(0), stage=stage, axis_name=None)
    return new, updates, metrics, (loss, g, logits[0], u, relative / relative.size, logits[1])
  change, out = jax.tree.map(jnp.zeros_like, params), []
  for s in range(case["steps"]):
    c = s % case["clean_batches"]
    cast = lambda x: jnp.asarray(nhwc(x), jax.tree.leaves(params)[0].dtype)
    batch = {"noisy": {"image": cast(gold["noisy_x"][s]), "mask": cast(gold["noisy_y"][s])},
             "clean": {"image": cast(gold["clean_x"][c]), "mask": cast(gold["clean_y"][c])}}
    state, updates, metrics, seen = step(state, batch)
    change = jax.tree.map(jnp.add, change, updates)
    out.append((seen, metrics))
  first = jnp.asarray(nhwc(gold["noisy_x"][0]), jax.tree.leaves(params)[0].dtype)
  return case, gold, out, state, change, method._apply(state.params["net"], first)


def check(name, meta="jvp", exact=False):
  """Compares everything that a case stores; `exact` is the float64 run."""
  case, gold, out, state, change, logits_after = run(name, meta)
  narrow = "param_after" in gold
  tol = lambda value: 3e-7 if exact else value
  loss0, g0, z0, _, _, clean_logits0 = out[0][0]
  assert error(nchw(z0), gold["logits0"]) < tol(5e-6)
  pixel_loss = reweighting.pixel_bce(z0, jnp.asarray(nhwc(gold["noisy_y"][0])))
  assert error(nchw(pixel_loss), gold["pixel_loss0"]) < tol(5e-6)
  assert error(nchw(clean_logits0), gold["clean_logits0"]) < tol(5e-6)
  assert abs(float(loss0) / case["clean_loss0"] - 1) < tol(5e-6)
  names = case["param_names"]
  norms = lambda tree: [np.linalg.norm(x.astype(np.float64)) for x in torch_layout(tree, names)]
  np.testing.assert_allclose(norms(g0), gold["clean_grad_norm0"], rtol=tol(1e-3))

  for s, ((_, _, _, u, weight, _), metrics) in enumerate(out):
    meta_tol = tol(1e-5 if narrow else 2e-3)  # full: later steps inherit flips of ReLU and pooling
    assert error(np.asarray(u)[..., 0], gold["minus_grad_eps_over_lr"][s]) < meta_tol
    assert error(np.asarray(weight)[..., 0], gold["w"][s]) < meta_tol
    assert abs(float(metrics["loss"]) / case["train_loss"][s] - 1) < tol(1e-5 if narrow else 1e-4)
    # One pixel more or less may cross zero in float32.
    pixels = weight.size
    assert abs(float(metrics["zero_weights"]) - case["zero_weight_fraction"][s]) <= (
        0 if exact else 2 / pixels) + 1e-6

  params = state.params["net"]
  np.testing.assert_allclose(norms(params), gold["param_after_norm"], rtol=tol(1e-5))
  np.testing.assert_allclose(norms(change), gold["param_delta_norm"], rtol=tol(1e-3))
  flat = lambda tree: np.concatenate([x.ravel() for x in torch_layout(tree, names)])
  if narrow:
    assert error(flat(params), gold["param_after"]) < tol(1e-6)
    assert error(flat(change) / case["lr"], gold["param_delta_over_lr"]) < tol(1e-3)
  if "param_delta_over_lr_head" in gold:
    head = np.stack([np.resize(x.ravel()[:8] / case["lr"], 8) if x.size >= 8 else
                     np.pad(x.ravel() / case["lr"], (0, 8 - x.size))
                     for x in torch_layout(change, names)])
    known = np.array([min(x.size, 8) for x in torch_layout(change, names)])
    shown = np.arange(8) < known[:, None]
    assert error(head[shown], gold["param_delta_over_lr_head"][shown]) < tol(1e-2)
  assert error(nchw(logits_after), gold["logits_after"]) < tol(1e-5 if narrow else 1e-4)


def narrow_cases():
  return [n for n, c in cases().items() if c["n_params"] < 1e6]


@pytest.mark.skipif(not cases(), reason="no golden vectors of this family")
@pytest.mark.parametrize("name", [n for n in cases() if n in narrow_cases()])
@pytest.mark.parametrize("meta", ["jvp", "double_backward"])
def test_narrow_case(name, meta):
  check(name, meta)


@pytest.mark.slow
@pytest.mark.skipif(not cases(), reason="no golden vectors of this family")
@pytest.mark.parametrize("name", [n for n in cases() if n not in narrow_cases()])
def test_full_width_case(name):
  check(name)


def test_odd_sides_as_the_reference_does():
  gold = arrays("forward_odd_size")
  case = next(c for c in cases().values() if c["width_divisor"] == 16)
  tensors = tensors_of({**case, "fill_seed": 0, "conv_gain": 1.0})
  net = noisy_unet.NoisyUNet(64 // 16, sides="ceil")
  logits = net.apply({"params": noisy_annotation_weights.from_torch(tensors)}, jnp.asarray(nhwc(gold["x"])))
  assert error(nchw(logits), gold["logits"]) < 5e-6
  cut = noisy_unet.NoisyUNet(64 // 16).apply({"params": noisy_annotation_weights.from_torch(tensors)},
                                             jnp.asarray(nhwc(gold["x"])))
  assert cut.shape == (*nhwc(gold["x"]).shape[:3], 1)


def counts(prob, truth):
  """(found, both, truth) pixels per image at 0.5 on probability and mask."""
  found, mask = prob > 0.5, truth > 0.5
  return [x.sum((1, 2, 3)) for x in (found, found & mask, mask)]


@pytest.mark.parametrize("truth_name", ["truth_nonempty", "truth_with_empty"])
def test_metrics_per_image(truth_name):
  """Dice and Jaccard per image; 1e-6: the reference adds 1.19e-7 to its denominators."""
  gold = json.loads((golden_dir(FAMILY) / "metrics.json").read_text(encoding="utf-8"))
  z = arrays("metrics")
  truth = z["truth_with_empty" if truth_name == "truth_with_empty" else "truth"]
  prob = 1 / (1 + np.exp(-z["logits"].astype(np.float64)))
  theirs = gold[truth_name]["per_image"]
  dice = evaluator.dice_of(*counts(prob, truth))
  np.testing.assert_allclose(dice, [i["dice"] for i in theirs], atol=1e-6)
  jaccard = evaluator.jaccard_of(*counts(prob, truth))
  np.testing.assert_allclose(jaccard, [i["jaccard"] for i in theirs], atol=1e-6)
  mean_bce = lambda z: np.mean(np.asarray(reweighting.pixel_bce(
      jnp.asarray(z, jnp.float32), jnp.asarray(truth)), np.float64))
  assert abs(mean_bce(z["logits"]) - gold[truth_name]["bce_with_logits"]) < 1e-6
  # What the published validation loss computes instead: the same loss with probabilities as logits.
  assert abs(mean_bce(prob) - gold[truth_name]["original_validation_loss_double_sigmoid"]) < 1e-6


def test_metrics_of_empty_masks_and_unequal_batches():
  """Where the published metrics are wrong: what ours say, and that theirs are understood."""
  gold = json.loads((golden_dir(FAMILY) / "metrics.json").read_text(encoding="utf-8"))
  z = arrays("metrics")
  ours = counts(z["prediction_empty_in_image3"], z["truth_with_empty"])
  empty = gold["truth_and_prediction_empty_in_image3"]
  assert abs(evaluator.jaccard_of(*ours).mean() - empty["mean_of_per_image_jaccard"]) < 1e-6
  assert empty["batch_jaccard"] == 1.0 and evaluator.jaccard_of(*ours).mean() < 1
  assert evaluator.dice_of(*ours)[3] == 1.0 and empty["dice_image3"] == 0.0
  prob = 1 / (1 + np.exp(-z["logits"].astype(np.float64)))
  dice = evaluator.dice_of(*counts(prob, z["truth"]))
  split = gold["unequal_batches"]["split"]
  assert abs(dice.mean() - gold["unequal_batches"]["per_image_mean_dice"]) < 1e-6
  of_batches = np.mean([b.mean() for b in np.split(dice, np.cumsum(split)[:-1])])
  assert abs(of_batches - gold["unequal_batches"]["original_mean_of_batch_dice"]) < 1e-6
  # saved_uint8: the published inference cuts off, ours rounds: at most one grey level apart.
  assert np.array_equal(np.floor(255 * prob), z["saved_uint8"])
  assert np.max(np.abs(np.round(255 * prob) - z["saved_uint8"])) == 1


FLOAT64 = """
import jax
jax.config.update("jax_enable_x64", True)
import numpy as np
from tests.parity import test_noisy_annotation as t
for name in t.narrow_cases():
  forms = {}
  for meta in ("jvp", "double_backward"):
    t.check(name, meta, exact=True)
    _, _, out, state, _, _ = t.run(name, meta)
    forms[meta] = [np.asarray(x) for (_, _, _, u, w, _), _ in out for x in (u, w)]
    forms[meta] += [np.asarray(x) for x in jax.tree.leaves(state.params)]
  assert forms["jvp"][0].dtype == np.float64
  worst = max(t.error(a, b) for a, b in zip(forms["jvp"], forms["double_backward"]))
  flips = sum(int(np.sum((a > 0) != (b > 0))) for a, b in
              zip(forms["jvp"][0:6:2], forms["double_backward"][0:6:2]))
  print(name, "largest relative difference of the two forms:", worst, "sign changes:", flips)
  assert worst < 1e-13 and flips == 0, worst
print("compared", len(t.narrow_cases()))
"""


@pytest.mark.slow
def test_both_forms_are_equal_in_float64():
  """Three whole steps in float64: u, w and parameters of the two forms differ by rounding only."""
  golden_dir(FAMILY)
  root = pathlib.Path(__file__).resolve().parents[2]
  done = subprocess.run([sys.executable, "-c", FLOAT64], cwd=root, capture_output=True, text=True,
                        env={**os.environ, "JAX_PLATFORMS": "cpu"}, check=False)
  assert done.returncode == 0, done.stderr[-2000:]
  print(done.stdout)
  assert f"compared {len(narrow_cases())}" in done.stdout and narrow_cases()
