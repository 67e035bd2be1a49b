"""The reweighting step against the published implementation: golden/noisy_annotation, every case.

The vectors were made in float64 and stored as float32; everything is compared relative to the largest
absolute value. Single passes run in float32, with the tolerances of the golden README, a few times
the float32 noise that the reference itself shows. Training steps run in float64, where only the
rounding of what is stored is left: 3e-7. In float32 a flipped decision of a ReLU or of the pooling
would be inherited by all later steps.
"""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import noisy_skin
from medae_jax.core import method as method_lib
from medae_jax.methods import _reweighting as reweighting
from medae_jax.models import noisy_unet
from medae_jax.tasks.segmentation import evaluator
from medae_jax.weights import noisy_annotation as weights
from tests.golden_cases import file_cases, golden_files
from tests.golden_fill import fill
from tests.parity.double import double

COMPILED_FAST = True  # LLVM's passes take longer than the few steps
FAMILY = "noisy_annotation"
WIDTH = 64  # of the published network; the cases state a divisor
STORED = 3e-7  # what rounding to float32 leaves of a number, times five


def cases():
  """One parameter (name, what the case states) per case of every meta*.json."""
  found = []
  for param in file_cases(FAMILY, "meta*.json"):
    if param.values[0] is None:
      return [pytest.param(None, marks=param.marks)]
    for name, case in json.loads(param.values[0].read_text(encoding="utf-8")).items():
      marks = [pytest.mark.slow] if case["n_params"] > 1e6 else []
      found.append(pytest.param((param.values[0].with_name(f"{name}.npz"), case), id=name,
                                marks=marks))
  return found


def arrays(file):
  with np.load(file, allow_pickle=False) as z:
    return {key: z[key] for key in z}


def nhwc(x):
  return np.moveaxis(np.asarray(x), -3, -1)


def nchw(x):
  return np.moveaxis(np.asarray(x), -1, -3)


def error(ours, theirs):
  """Largest absolute difference over the largest absolute value, if there is any but 0."""
  theirs = np.asarray(theirs, np.float64)
  return float(np.max(np.abs(np.asarray(ours, np.float64) - theirs)) / (np.max(np.abs(theirs)) or 1))


def config_of(case, **changes):
  """The method's config with everything that the case states."""
  config = noisy_skin.get_config("smoke").copy_and_resolve_references()
  with config.unlocked():
    config.model.width = WIDTH // case["width_divisor"]
    config.model.mean, config.model.std = (0.0,), (1.0,)  # stored images are standardised
    config.optim.lr, config.optim.schedule = case["lr"], "constant"
    config.optim.momentum, config.optim.weight_decay = case["momentum"], case["weight_decay"]
    config.method.track = 0
    config.update_from_flattened_dict(changes)
  return config


def tensors_of(case):
  return {t["name"]: fill(t["name"], t["shape"], t["kind"], case["fill_seed"],
                          case.get("conv_gain", 1.0)) for t in case["tensors"]}


def torch_layout(params, names):
  """Parameters as arrays in the reference's layout, in the order of `names`."""
  ours = dict(weights.layer_names())
  out = []
  for name in names:
    layer, part = name.rsplit(".", 1)
    value = np.asarray(params[ours[layer]]["kernel" if part == "weight" else "bias"])
    if part == "weight":
      value = value.transpose((0, 3, 1, 2) if ours[layer].endswith("_up") else (3, 2, 0, 1))
    out.append(value)
  return out


def norms(tree, names):
  return [np.linalg.norm(x.astype(np.float64)) for x in torch_layout(tree, names)]


@pytest.mark.parametrize("given", cases())
def test_first_pass(given):
  """Logits, pixel losses and the clean gradient at the initial parameters, in float32."""
  file, case = given
  gold = arrays(file)
  method = method_lib.load(config_of(case))
  params = method.from_torch(tensors_of(case))[0]["net"]
  batch = lambda kind: {"image": nhwc(gold[f"{kind}_x"][0]), "mask": nhwc(gold[f"{kind}_y"][0])}

  @jax.jit
  def first(params, noisy, clean):
    loss = lambda p: method._mean_loss(p, clean, None)[0]
    logits = [method._apply(params, b["image"]) for b in (noisy, clean)]
    return *logits, reweighting.pixel_bce(logits[0], noisy["mask"]), jax.value_and_grad(loss)(params)
  logits, clean_logits, pixel_loss, (loss, grad) = first(params, batch("noisy"), batch("clean"))
  for ours, theirs in ((logits, "logits0"), (clean_logits, "clean_logits0"),
                       (pixel_loss, "pixel_loss0")):
    if theirs in gold:
      assert error(nchw(ours), gold[theirs]) < 5e-6, theirs
  assert abs(float(loss) / case["clean_loss0"] - 1) < 5e-6
  if "clean_grad_norm0" in gold:
    np.testing.assert_allclose(norms(grad, case["param_names"]), gold["clean_grad_norm0"], rtol=1e-3)


def run(case, gold, form):
  """All training steps of a case through Method.train_step in float64, and what they compute inside.

  The change of the parameters is added up apart from them: with the published learning rate it is
  near the float32 resolution of what is stored.

  Returns:
    (u, relative weight, metrics) of every step, parameters, their change, final logits.
  """
  method = method_lib.load(config_of(case, **{"method.meta": form}))
  stage, = method.stages()
  params = double(method.from_torch(tensors_of(case))[0]["net"])
  tx, _ = method._optimizer(stage)
  state = method_lib.State.create({"net": params}, opt={"net": tx.init(params)})

  @jax.jit
  def step(state, batch):  # one compilation: what is computed twice here is merged there
    grads, _, (relative, u) = method._reweighted(state.params["net"], batch, 1, None)
    updates, _ = tx.update(grads, state.opt["net"], state.params["net"])
    new, metrics = method.train_step(state, batch, jax.random.key(0), stage=stage, axis_name=None)
    return new, updates, (u, relative / relative.size, metrics)

  change, out = jax.tree.map(jnp.zeros_like, params), []
  for s in range(case["steps"]):
    at = {"noisy": s, "clean": s % case["clean_batches"]}
    batch = {kind: {"image": double(nhwc(gold[f"{kind}_x"][i])),
                    "mask": double(nhwc(gold[f"{kind}_y"][i]))} for kind, i in at.items()}
    state, updates, seen = step(state, batch)
    assert seen[0].dtype == jnp.float64
    change = jax.tree.map(jnp.add, change, updates)
    out.append(jax.device_get(seen))
  after = jax.jit(method._apply)(state.params["net"], double(nhwc(gold["noisy_x"][0])))
  return out, state.params["net"], change, after


def check(case, gold, found):
  """Compares everything that a case stores; any array may be absent or hold fewer steps."""
  out, params, change, logits_after = found
  for s, (u, weight, metrics) in enumerate(out):
    for ours, theirs in ((u, "minus_grad_eps_over_lr"), (weight, "w")):
      if s < len(gold.get(theirs, ())):
        assert error(ours[..., 0], gold[theirs][s]) < STORED, (theirs, s)
    np.testing.assert_allclose(metrics["loss"], case["train_loss"][s], rtol=STORED, err_msg=str(s))
    # Pixels whose u is rounding alone may have either sign; metrics are float32.
    undecided = np.mean(np.abs(u) < 1e-13 * np.abs(u).max())
    assert abs(float(metrics["zero_weights"]) - case["zero_weight_fraction"][s]) <= undecided + 1e-6

  names = case["param_names"]
  flat = lambda tree: np.concatenate([x.ravel() for x in torch_layout(tree, names)])
  head = lambda tree: np.stack([np.pad(x.ravel()[:8], (0, 8 - min(8, x.size)))
                                for x in torch_layout(tree, names)])
  wanted = {"param_after": lambda: flat(params),
            "param_delta_over_lr": lambda: flat(change) / case["lr"],
            "param_delta_over_lr_head": lambda: head(change) / case["lr"],
            "logits_after": lambda: nchw(logits_after)}
  for name, ours in wanted.items():
    if name in gold:
      assert error(ours(), gold[name]) < STORED, name
  for name, tree in (("param_after_norm", params), ("param_delta_norm", change)):
    if name in gold:
      np.testing.assert_allclose(norms(tree, names), gold[name], rtol=STORED, err_msg=name)


@pytest.mark.parametrize("given", cases())
def test_training_steps(given):
  """Both forms of the meta gradient: against the vectors, and against each other to rounding."""
  file, case = given
  gold, forms = arrays(file), {}
  full = case["n_params"] > 1e6  # there the slow form adds only minutes: it is compared in narrow cases
  with jax.enable_x64(True):
    for form in ("jvp",) if full else ("jvp", "double_backward"):
      found = run(case, gold, form)
      check(case, gold, found)
      out, params, *_ = found
      forms[form] = [x for u, weight, _ in out for x in (u, weight)] + jax.tree.leaves(params)
  if not full:
    assert max(error(a, b) for a, b in zip(*forms.values(), strict=True)) < 1e-12


@pytest.mark.parametrize("file", file_cases(FAMILY, "forward_odd_size*.npz"))
def test_odd_sides_as_the_reference_does(file):
  gold = arrays(file)
  image = jnp.asarray(nhwc(gold["x"]))
  width = WIDTH // int(gold["width_divisor"])
  net = noisy_unet.NoisyUNet(width, sides="ceil")
  shapes, ours = jax.eval_shape(net.init, jax.random.key(0), image)["params"], dict(
      weights.layer_names())
  names = [f"{layer}.{part}" for layer in ours for part in ("weight", "bias")]
  empty = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), shapes)
  kind = lambda name: ("bias" if name.endswith("bias") else
                       "convT" if ours[name.rsplit(".", 1)[0]].endswith("_up") else "conv")
  params = weights.from_torch({
      name: fill(name, like.shape, kind(name), int(gold["fill_seed"]),
                 float(gold.get("conv_gain", 1.0)))
      for name, like in zip(names, torch_layout(empty, names), strict=True)})
  logits = net.apply({"params": params}, image)
  assert error(nchw(logits), gold["logits"]) < 5e-6
  cut = noisy_unet.NoisyUNet(width).apply({"params": params}, image)
  assert cut.shape == (*image.shape[:3], 1)


def counts(prob, truth):
  """(found, both, truth) pixels per image at 0.5 on probability and mask."""
  found, mask = prob > 0.5, truth > 0.5
  return [x.sum((1, 2, 3)) for x in (found, found & mask, mask)]


def metric_files():
  """(what the reference found, its inputs) of every metrics*.json."""
  return [(json.loads(f.read_text(encoding="utf-8")), arrays(f.with_suffix(".npz")))
          for f in golden_files(FAMILY, "metrics*.json")]


@pytest.mark.parametrize("truth_name", ["truth_nonempty", "truth_with_empty"])
def test_metrics_per_image(truth_name):
  """Dice and Jaccard per image; 1e-6: the reference adds 1.19e-7 to its denominators."""
  for gold, z in metric_files():
    truth = z["truth_with_empty" if truth_name == "truth_with_empty" else "truth"]
    prob = 1 / (1 + np.exp(-z["logits"].astype(np.float64)))
    theirs = gold[truth_name]["per_image"]
    dice = evaluator.dice_of(*counts(prob, truth))
    np.testing.assert_allclose(dice, [i["dice"] for i in theirs], atol=1e-6)
    jaccard = evaluator.jaccard_of(*counts(prob, truth))
    np.testing.assert_allclose(jaccard, [i["jaccard"] for i in theirs], atol=1e-6)
    mean_bce = lambda logits, truth=truth: np.mean(np.asarray(reweighting.pixel_bce(
        jnp.asarray(logits, jnp.float32), jnp.asarray(truth)), np.float64))
    assert abs(mean_bce(z["logits"]) - gold[truth_name]["bce_with_logits"]) < 1e-6
    # What the published validation loss computes: the same loss with probabilities as logits.
    assert abs(mean_bce(prob) - gold[truth_name]["original_validation_loss_double_sigmoid"]) < 1e-6


def test_metrics_of_an_empty_image():
  """Where the published metrics are wrong: what ours say, and that theirs are understood."""
  for gold, z in metric_files():
    for key, empty in gold.items():
      match = re.fullmatch(r"truth_and_prediction_empty_in_(image(\d+))", key)
      if match:
        ours = counts(z[f"prediction_empty_in_{match[1]}"], z["truth_with_empty"])
        jaccard = evaluator.jaccard_of(*ours).mean()
        assert abs(jaccard - empty["mean_of_per_image_jaccard"]) < 1e-6
        assert empty["batch_jaccard"] == 1.0 and jaccard < 1
        assert evaluator.dice_of(*ours)[int(match[2])] == 1.0
        assert empty[f"dice_{match[1]}"] == 0.0


def test_metrics_of_unequal_batches():
  for gold, z in metric_files():
    prob = 1 / (1 + np.exp(-z["logits"].astype(np.float64)))
    if "unequal_batches" in gold:
      dice = evaluator.dice_of(*counts(prob, z["truth"]))
      split = gold["unequal_batches"]["split"]
      assert abs(dice.mean() - gold["unequal_batches"]["per_image_mean_dice"]) < 1e-6
      of_batches = np.mean([b.mean() for b in np.split(dice, np.cumsum(split)[:-1])])
      assert abs(of_batches - gold["unequal_batches"]["original_mean_of_batch_dice"]) < 1e-6
    # saved_uint8: the published inference cuts off, ours rounds: at most one grey level apart.
    cut = z["saved_uint8"].astype(int)
    assert np.all(np.abs(np.floor(255 * prob) - cut) <= (np.abs(255 * prob % 1 - 0.5) > 0.4999))
    assert np.max(np.abs(np.round(255 * prob) - cut)) == 1
