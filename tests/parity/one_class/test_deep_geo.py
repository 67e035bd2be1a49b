"""deep_geo against its golden vectors: gathers, network, training, Dirichlet fits, and the whole score.

Tolerances are those of the golden README. The vectors come from float32 runs of Keras; training runs in
float64 here.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medae_jax.core.method import State
from medae_jax.methods import deep_geo
from medae_jax.methods._transformations import Transformations
from medae_jax.scores import dirichlet
from medae_jax.weights.deep_geo import networks
from tests.golden_cases import file_cases, golden_files
from tests.parity.double import double

COMPILED_FAST = True  # LLVM's passes take longer than the few steps


def _load(file):
  with np.load(file, allow_pickle=False) as z:
    return {k: z[k] for k in z.files}


def _method(blocks, widen, dtype="float32", **method):
  return deep_geo.Method(ml_collections.ConfigDict({
      "method": {"name": "deep_geo", "flip": True, "shift": 8, "rotations": 4, "views_at_once": 8,
                 "fit_images": 0, "parity": True, "score": {"kind": "dirichlet", "offset": 1e-6}, **method},
      "model": {"blocks": blocks, "widen": widen, "dtype": dtype},
      "optim": {"lr": 1e-3, "b1": 0.9, "b2": 0.999, "eps": 1e-7, "l2": 0.00025},
      "train": {"accum": 1, "steps": 3}}))


def _trees(case, prefix):
  """(params, stats) under "prefix/"."""
  return networks({k.removeprefix(f"{prefix}/"): v for k, v in case.items() if k.startswith(f"{prefix}/")})


def _network(file, dtype="float32", put=jnp.asarray, **method):
  """(method, state, case) of a file of weights."""
  case = _load(file)
  depth, widen, classes = (int(v) for v in case["meta_depth_widen_classes"])
  method = _method((depth - 4) // 6, widen, dtype=dtype, **method)
  method.net = dataclasses.replace(method.net, classes=classes)
  params, stats = _trees(case, "param")
  state = State.create({"net": jax.tree.map(put, params)}, {"net": jax.tree.map(put, stats)})
  return method, state.replace(opt={"net": method.tx.init(state.params["net"])}), case


def _close(ours, theirs, atol, rtol=0.0):
  """Two trees of the same layers."""
  flat = lambda tree: {jax.tree_util.keystr(k): np.asarray(v)
                       for k, v in jax.tree_util.tree_leaves_with_path(tree)}
  ours, theirs = flat(ours), flat(theirs)
  assert sorted(ours) == sorted(theirs) and ours
  for key, value in theirs.items():
    np.testing.assert_allclose(ours[key], value, atol=atol, rtol=rtol, err_msg=key)


def test_transformations():
  """Every stored image and index map, exactly; on the device and in the same order."""
  checked = 0
  for file in golden_files("deep_geo", "transforms*.npz"):
    case = _load(file)
    for key, expected in case.items():
      if found := re.fullmatch(r"(image\d+)_all(\d+)_shift(\d+)", key):
        image, shift = case[found[1]], int(found[3])
        part = slice(None)
      elif found := re.fullmatch(r"index_map_(\d+)_shift(\d+)(?:_(first|last)(\d+))?", key):
        side, shift = int(found[1]), int(found[2])
        image = np.arange(side * side).reshape(side, side, 1)
        expected = expected[..., None]
        n = int(found[4] or 0)
        part = {"first": slice(0, n), "last": slice(-n, None), None: slice(None)}[found[3]]
      else:
        continue
      turns = Transformations(True, shift, 4)
      images = jnp.broadcast_to(image, (len(turns), *image.shape))
      ours = jax.jit(turns.apply)(images, jnp.arange(len(turns)))
      np.testing.assert_array_equal(np.asarray(ours)[part], expected, err_msg=key)
      checked += 1
    parameters = case["params_flip_tx_ty_k"]
    shift = int(np.abs(parameters[:, 1:3]).max())
    np.testing.assert_array_equal(Transformations(True, shift, 4).parameters, parameters)
  assert checked


@pytest.mark.parametrize("file", file_cases("deep_geo", "wrn*.npz"))
def test_forward(file):
  """Inference and training; the statistics of the batch and both updates of the running variance."""
  method, state, case = _network(file)
  atol = 1e-5 if case["x"].shape[1] <= 32 else 2e-5
  variables = {"params": state.params["net"], "batch_stats": state.stats["net"]}
  logits, kept = method.net.apply(variables, case["x"], mutable=["intermediates"])
  np.testing.assert_allclose(logits, case["eval_logits"], atol=atol, rtol=1e-5)
  np.testing.assert_allclose(jax.nn.softmax(logits), case["eval_probs"], atol=1e-5)
  np.testing.assert_allclose(kept["intermediates"]["pool"][0], case["eval_pool"], atol=atol, rtol=1e-5)
  for parity, variance in ((True, "keras231"), (False, "bessel_once")):
    net = _network(file, parity=parity)[0].net
    logits, after = net.apply(variables, case["x"], train=True, mutable=["batch_stats", "intermediates"])
    np.testing.assert_allclose(logits, case["train_logits"], atol=atol, rtol=1e-5)
    np.testing.assert_allclose(after["intermediates"]["pool"][0], case["train_pool"], atol=atol, rtol=1e-5)
    updated = {f"x/{k.split('/')[1]}.{name}": v for name, start in (
        ("moving_mean", "moving_mean_after1/"), ("moving_variance", f"moving_var_after1_{variance}/"))
               for k, v in case.items() if k.startswith(start)}
    _close(after["batch_stats"], _trees(updated, "x")[1], atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("file", file_cases("deep_geo", "wrn*.npz"))
def test_training(file, float64):
  """Loss and its parts, the gradient, and the weights after all stored Adam steps, in float64."""
  method, state, case = _network(file, dtype="float64", put=double)
  if "adam_losses" not in case:
    pytest.skip("this case holds no trajectory")
  # The stored images are what the network sees: the identity is view 0, labels are given apart.
  method.transformations = type("Given", (), {"apply": lambda self, image, view: image})()
  batch = {"image": double(case["x"]), "view": jnp.asarray(case["y"])}
  step = jax.jit(lambda s: method.train_step(s, batch, None, stage=None, axis_name=None))
  losses = []
  for i in range(len(case["adam_losses"])):
    state, metrics = step(state)
    losses.append(float(metrics["loss"]))
    if not i:  # the first mean of the gradient is 1 - b1 of it
      grads = jax.tree.map(lambda m: m / (1 - 0.9), state.opt["net"][0].mu)
      _close(grads, _trees(case, "grad")[0], atol=1e-6, rtol=1e-5)
      assert metrics["cross_entropy"] == pytest.approx(float(case["loss_ce"]), abs=1e-5)
      assert metrics["loss"] - metrics["cross_entropy"] == pytest.approx(float(case["loss_l2"]), abs=1e-5)
  np.testing.assert_allclose(losses, case["adam_losses"], atol=1e-5)
  _close(state.params["net"], _trees(case, f"adam{len(losses)}")[0], atol=5e-6)


def _dirichlet_cases():
  for file in golden_files("deep_geo", "dirichlet*.npz"):
    case = _load(file)
    for name in sorted({k.split("/")[0] for k in case if k.endswith("/p_train")}):
      yield name, {k.partition("/")[2]: v for k, v in case.items() if k.startswith(f"{name}/")}


def test_dirichlet_fits_and_scores():
  """Newton's method and the fixed point against both stored solutions, and the scores of either."""
  for name, case in _dirichlet_cases():
    moments = dirichlet.Moments()
    for part in np.array_split(np.log(case["p_train"].astype(np.float64)), 3):
      moments.add(part[:, None])
    p, log_p = moments.means()
    np.testing.assert_allclose(log_p[0], case["log_p_mean"], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(dirichlet.start(p, log_p)[0], case["alpha_init"], rtol=1e-4, err_msg=name)
    newton, fixed = dirichlet.fit(p, log_p), dirichlet.fixed_point(p, log_p)
    assert newton.converged.all() and newton.steps.max() < 50, name
    np.testing.assert_allclose(newton.alpha[0], case["alpha_float64"], rtol=2e-5, err_msg=name)
    # The published iteration gives up after 1000 rounds; Newton's method does not stop there with it.
    for fit in (newton, fixed) if case.get("n_iter", 0) < 1000 else (fixed,):
      np.testing.assert_allclose(fit.alpha[0], case["alpha"], rtol=1e-4, err_msg=name)
    tolerance = 1e-4 * (1 + np.abs(case["score"])) + (0.1 if name.startswith("sharp") else 0)
    with np.errstate(divide="ignore"):
      log_test = jnp.asarray(np.log(case["p_test"]))[:, None]
    for fit, key, offset in ((fixed, "score", 1e-6), (newton, "score_float64", 1e-6),
                             (fixed, "score_without_offset", 0.0)):
      ours = np.asarray(dirichlet.log_density(jnp.asarray(fit.alpha, jnp.float32), log_test, offset))[:, 0]
      finite = np.isfinite(case[key])  # without the offset a vector with zeros is infinitely unlikely
      np.testing.assert_array_equal(np.isfinite(ours), finite, err_msg=f"{name} {key}")
      miss = np.abs(ours[finite] - case[key][finite])
      assert finite.any() and (miss <= tolerance[finite]).all(), f"{name} {key}: {miss.max()}"


def test_inverse_digamma():
  for file in golden_files("deep_geo", "dirichlet*.npz"):
    case = _load(file)
    np.testing.assert_allclose(dirichlet.inverse_digamma(case["inv_digamma/y"]), case["inv_digamma/x"],
                               rtol=1e-12)


@pytest.mark.parametrize("parity", [True, False])
def test_the_whole_score(parity):
  """Fit on the training images and score of both kinds of test images; higher means anomalous here."""
  for file in golden_files("deep_geo", "pipeline*.npz"):
    case = _load(file)
    weights = next(f for f in golden_files("deep_geo", "wrn*.npz")
                   if _load(f)["x"].shape[1:] == case["train_images"].shape[1:])
    published = 8 if case["train_images"].shape[1] <= 32 else 16  # of the sets of that size
    method, state, _ = _network(weights, parity=parity, shift=int(case.get("shift", published)))
    assert method.views == len(case["alpha"])
    dense = state.params["net"]["dense"]
    dense["kernel"] = dense["kernel"] * case["dense_kernel_scale"]
    image = lambda key: (case[key].astype(np.float32) / 255 - 0.5) / 0.5
    train = image("train_images")
    halves = [{"image": part, "valid": np.ones(len(part), bool)} for part in np.array_split(train, 2)]
    state = method.finalize(state, halves)
    alpha = np.asarray(state.extra["alpha"])
    np.testing.assert_allclose(alpha, case["alpha" if parity else "alpha_float64"], rtol=1e-3)
    found = {}
    for kind in ("normal", "anomaly"):
      out = jax.jit(method.score)(state, {"image": image(f"{kind}_images")})
      log_p = method.log_probabilities(state, image(f"{kind}_images")[:1])
      np.testing.assert_allclose(np.exp(log_p[0]), case[f"probs_{kind}_image0"], atol=1e-5)
      np.testing.assert_allclose(out["score"], -case[f"score_{kind}"], atol=0.05)
      np.testing.assert_allclose(out["score_simplified"], -case[f"simplified_{kind}"], atol=1e-5)
      np.testing.assert_allclose(out["contributions"].mean(-1), out["score"], rtol=1e-5)
      found[kind] = np.asarray(out["score"])
    label = np.repeat([0, 1], [len(found["normal"]), len(found["anomaly"])])
    assert roc_auc_score(label, np.concatenate([found["normal"], found["anomaly"]])) == case["roc_auc"]
