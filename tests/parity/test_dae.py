"""The DAE against vectors of the reference implementation: network, update rule, noise, loop.

Tolerances are those of the vectors' README: the reference ran in float64 and stored float32; ours
runs in float32, except for the update rule alone, which is compared in float64. Every case that the
folder holds is read; its sizes and hyper-parameters come from the case.
"""

import json
import re

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import common
from medae_jax.losses import pixel
from medae_jax.optim import adam, schedules
from medae_jax.core.method import Stage, State
from medae_jax.methods import dae
from medae_jax.models import dae_unet
from tests.golden_cases import golden_dir


def _cases(pattern):
  try:
    folder = golden_dir("dae")
  except pytest.skip.Exception:
    return [pytest.param(None, marks=pytest.mark.skip("no golden vectors of family dae"))]
  return sorted(p.stem for p in folder.glob(pattern))


def _load(name):
  folder = golden_dir("dae")
  with np.load(folder / f"{name}.npz", allow_pickle=False) as z:
    arrays = {k: z[k] for k in z.files}
  meta = json.loads((folder / "meta.json").read_text()).get(name, {})
  return arrays, meta


def _group(arrays, prefix):
  return {k[len(prefix):]: v for k, v in arrays.items() if k.startswith(prefix)}


def _depth_wf(params):
  depth = 1 + max(int(m.group(1)) for m in (re.match(r"down_path\.(\d+)\.", k) for k in params) if m)
  return depth, int(np.log2(params["down_path.0.block.1.weight"].shape[0]))


def _config(depth, wf, lr, half_period, epoch_steps, **data):
  c = common.base()
  c.method = ml_collections.ConfigDict(dict(
      name="dae", loss_over="all", noise_res=16, noise_std=0.2, noise_roll="batch",
      score=dict(weights_positive=(), weights_negative=(), erosion=5, median=5, image_score="mean",
                 test_noise_draws=0, test_noise_res=16, test_noise_std=0.2)))
  c.model = ml_collections.ConfigDict(dict(depth=depth, wf=wf, dtype="float32", precision="highest",
                                           remat=False))
  c.optim = ml_collections.ConfigDict(dict(
      lr=lr, schedule="cosine_cyclic", half_period=half_period, epoch_steps=epoch_steps, b1=0.9,
      b2=0.999, eps=1e-8, weight_decay=1e-5, clip=0.5, amsgrad=True))
  return c


def _nhwc(x):
  return jnp.asarray(x).transpose(0, 2, 3, 1)


def _to_reference(params, depth):
  """Our tree -> names and layouts of the reference, through from_torch's own inverse."""
  names = {}
  def block(prefix, tree):
    for part, at in (("conv_a", 1), ("norm_a", 3), ("conv_b", 5), ("norm_b", 7)):
      leaf = tree[part]
      if part.startswith("conv"):
        names[f"{prefix}.{at}.weight"] = np.asarray(leaf["kernel"]).transpose(3, 2, 0, 1)
      else:
        names[f"{prefix}.{at}.weight"] = np.asarray(leaf["scale"])
      names[f"{prefix}.{at}.bias"] = np.asarray(leaf["bias"])
  for i in range(depth):
    block(f"down_path.{i}.block", params[f"down_{i}"])
  for j in range(depth - 1):
    i = depth - 2 - j
    names[f"up_path.{j}.up.weight"] = np.asarray(params[f"up_{i}"]["kernel"]).transpose(0, 3, 1, 2)
    names[f"up_path.{j}.up.bias"] = np.asarray(params[f"up_{i}"]["bias"])
    block(f"up_path.{j}.conv_block.block", params[f"up_block_{i}"])
  names["last.weight"] = np.asarray(params["last"]["kernel"]).T[:, :, None, None]
  names["last.bias"] = np.asarray(params["last"]["bias"])
  return names


@pytest.mark.parametrize("name", _cases("unet_*.npz"))
def test_network_loss_and_gradient(name, backend):
  """In the forms of models/swish_norm.py for both backends."""
  arrays, _ = _load(name)
  reference = _group(arrays, "param/")
  depth, wf = _depth_wf(reference)
  params = dae_unet.from_torch(reference, depth)
  x, target, mask = _nhwc(arrays["x"]), _nhwc(arrays["target"]), _nhwc(arrays["mask"])
  net = dae_unet.UNet(x.shape[-1], depth, wf, precision="highest")
  out = net.apply({"params": params}, x)
  np.testing.assert_allclose(out, _nhwc(arrays["output"]), atol=2e-5, rtol=0)
  np.testing.assert_array_equal(pixel.foreground(target), mask)

  def loss_fn(p):
    return jnp.mean(pixel.masked_squared_error(target, net.apply({"params": p}, x), mask))
  loss, grads = jax.value_and_grad(loss_fn)(params)
  np.testing.assert_allclose(loss, arrays["loss"], rtol=1e-6)
  ours = _to_reference(grads, depth)
  assert sorted(ours) == sorted(_group(arrays, "grad/"))
  for key, value in _group(arrays, "grad/").items():
    np.testing.assert_allclose(ours[key], value, atol=2e-6, rtol=0, err_msg=key)


@pytest.mark.parametrize("name", _cases("unet_*.npz"))
def test_intermediate_outputs(name):
  arrays, _ = _load(name)
  recorded = {**_group(arrays, "act/"), **_group(arrays, "std_weight/")}
  if not recorded:
    pytest.skip("this case records no intermediate outputs")
  reference = _group(arrays, "param/")
  depth, wf = _depth_wf(reference)
  net = dae_unet.UNet(arrays["x"].shape[1], depth, wf, precision="highest")
  _, seen = net.apply({"params": dae_unet.from_torch(reference, depth)}, _nhwc(arrays["x"]),
                      capture_intermediates=True)
  seen = seen["intermediates"]
  for key, value in _group(arrays, "act/").items():
    kind, j, *up = key.replace("_path", "").split(".")
    level = int(j) if kind == "down" else depth - 2 - int(j)
    ours = seen[f"down_{level}" if kind == "down" else f"up_{level}" if up else f"up_block_{level}"]
    np.testing.assert_allclose(ours["__call__"][0], _nhwc(value), atol=2e-5, rtol=0, err_msg=key)
  from medae_jax.models.layers.conv import standardise
  for key, value in _group(arrays, "std_weight/").items():
    kernel = jnp.asarray(reference[key].transpose(2, 3, 1, 0))
    np.testing.assert_allclose(standardise(kernel), value.transpose(2, 3, 1, 0), atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", _cases("unet_*.npz"))
def test_five_training_steps(name):
  """`train_step` itself, fed the noised input through a network that sees no further noise."""
  arrays, meta = _load(name)
  reference = _group(arrays, "param/")
  depth, wf = _depth_wf(reference)
  lr = meta["lr0"]
  method = dae.Method(_config(depth, wf, lr, meta["T_max"], meta["scheduler_step_every"]))
  method.corrupt = lambda batch, rng: (_nhwc(arrays["x"]), _nhwc(arrays["mask"]))
  params = jax.tree.map(jnp.asarray, dae_unet.from_torch(reference, depth))
  state = State.create({"net": params}, opt={"net": method._tx.init(params)})
  step = jax.jit(lambda s: method.train_step(s, {"image": _nhwc(arrays["target"])},
                                             jax.random.key(0), stage=Stage("main", 5), axis_name=None))
  for i in range(len(arrays["step_loss"])):
    state, metrics = step(state)
    np.testing.assert_allclose(metrics["loss"], arrays["step_loss"][i], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(metrics["lr"], arrays["step_lr"][i], rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], arrays["step_grad_norm"][i], rtol=1e-4)
    if i in (0, len(arrays["step_loss"]) - 1):
      expected = _group(arrays, f"after{i + 1}/")
      ours = _to_reference(state.params["net"], depth)
      miss = np.concatenate([np.abs(ours[k] - v).ravel() for k, v in expected.items()])
      # entries with a gradient near Adam's eps take steps of undetermined sign: README
      assert miss.max() <= 0.3 * lr
      assert np.mean(miss <= 0.02 * lr) >= 0.999


def test_update_rule_in_float64():
  arrays, meta = _load("optimizer")
  with jax.enable_x64(True):
    schedule = lambda step: (meta["lr0"] / 2 * (1 + jnp.cos(
        jnp.pi * (step // meta["scheduler_step_every"]).astype(jnp.float64) / meta["T_max"])))
    tx = adam.adam(schedule, b1=meta["betas"][0], b2=meta["betas"][1], eps=meta["eps"],
                    weight_decay=meta["weight_decay"], clip=meta["max_norm"],
                    amsgrad=meta["amsgrad"])
    params = {k: jnp.asarray(v, jnp.float64) for k, v in _group(arrays, "init/").items()}
    state = tx.init(params)
    for t in range(len(arrays["lr"])):
      grads = {k: jnp.asarray(v[t], jnp.float64) for k, v in _group(arrays, "grad/").items()}
      np.testing.assert_allclose(adam.global_norm(grads), arrays["grad_norm"][t], rtol=1e-12)
      updates, state = tx.update(grads, state, params)
      params = {k: params[k] + updates[k] for k in params}
      for k, v in _group(arrays, "traj/").items():
        np.testing.assert_allclose(params[k], v[t], atol=1e-12, rtol=0)


def test_learning_rates():
  arrays, meta = _load("lr_schedule")
  meta = {"base_lr": 1e-4, "T_max": 100, **meta}
  schedule = schedules.cosine_cyclic(meta["base_lr"], meta["T_max"], epoch_steps=32)
  ours = [float(schedule(jnp.int32(32 * e + 31))) for e in range(len(arrays["lr"]))]
  np.testing.assert_allclose(ours, arrays["lr"], atol=1e-7 * meta["base_lr"] * 10, rtol=0)


def _noise_cases():
  if not _cases("noise.npz") or not isinstance(_cases("noise.npz")[0], str):
    return _cases("noise.npz")
  return sorted({k.split("/")[0] for k in _load("noise")[0]})


@pytest.mark.parametrize("case", _noise_cases())
def test_noise(case):
  arrays = _group(_load("noise")[0], f"{case}/")
  x, coarse = _nhwc(arrays["x"]), _nhwc(arrays["coarse"])
  roll = jnp.broadcast_to(jnp.asarray(arrays["roll"], jnp.int32), (len(x), 2))
  method = dae.Method(_config(2, 1, 1e-3, 100, 1))
  noised, _ = method.corrupt({"image": x, "noise": coarse, "roll": roll}, None)
  np.testing.assert_allclose(noised, _nhwc(arrays["noised"]), atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", _cases("training_loop*.npz"))
def test_miniature_training_loop(name):
  """Pseudo-epochs with recorded noise: training, validation, selection of the best epoch."""
  arrays, meta = _load(name)
  meta = {"lr0": 1e-3, "T_max": 100, **meta}
  reference = _group(arrays, "param/")
  depth, wf = _depth_wf(reference)
  epochs = len(arrays["train_loss"])
  iterations = len(arrays["lr"]) // epochs
  batch = arrays["coarse"].shape[1]
  val_batches = len(arrays["coarse"]) // epochs - iterations
  lr = float(arrays["lr"][0])
  method = dae.Method(_config(depth, wf, lr, meta["T_max"], iterations))
  params = jax.tree.map(jnp.asarray, dae_unet.from_torch(reference, depth))
  state = State.create({"net": params}, opt={"net": method._tx.init(params)})
  step = jax.jit(lambda s, b: method.train_step(s, b, jax.random.key(0), stage=Stage("main", 1),
                                                axis_name=None))
  evaluate = jax.jit(lambda s, b: jnp.mean(method.eval_step(s, b, jax.random.key(0))["loss"]))
  draws = iter(range(len(arrays["coarse"])))

  def batch_of(images, number):
    n = len(images) // batch
    k = next(draws)
    return {"image": _nhwc(images[(number % n) * batch:(number % n + 1) * batch]),
            "noise": _nhwc(arrays["coarse"][k]),
            "roll": jnp.broadcast_to(jnp.asarray(arrays["roll"][k], jnp.int32), (batch, 2))}

  best, saved, it = np.inf, [], 0
  for epoch in range(epochs):
    train = []
    for _ in range(iterations):
      state, metrics = step(state, batch_of(arrays["train_x"], it))
      np.testing.assert_allclose(metrics["lr"], arrays["lr"][it], rtol=1e-6, atol=1e-10)
      train.append(float(metrics["loss"]))
      it += 1
    val = np.mean([float(evaluate(state, batch_of(arrays["val_x"], v))) for v in range(val_batches)])
    np.testing.assert_allclose(np.mean(train), arrays["train_loss"][epoch], atol=2e-6)
    np.testing.assert_allclose(val, arrays["val_loss"][epoch], atol=2e-6)
    if val < best:
      best = val
      saved.append(epoch + 1)
  assert saved == list(arrays["saved_epochs"])
  ours = _to_reference(state.params["net"], depth)
  for key, value in _group(arrays, "final/").items():
    np.testing.assert_allclose(ours[key], value, atol=0.02 * lr, rtol=0, err_msg=key)


def test_wrong_update_rules_are_caught():
  """The vectors separate our AMSGrad from the one with a bias-corrected maximum."""
  arrays, meta = _load("optimizer")
  with jax.enable_x64(True):
    import optax
    tx = optax.chain(adam.clip_by_global_norm(meta["max_norm"]),
                     optax.add_decayed_weights(meta["weight_decay"]), optax.amsgrad(meta["lr0"]))
    params = {k: jnp.asarray(v, jnp.float64) for k, v in _group(arrays, "init/").items()}
    state = tx.init(params)
    for t in range(len(arrays["lr"])):
      grads = {k: jnp.asarray(v[t], jnp.float64) for k, v in _group(arrays, "grad/").items()}
      updates, state = tx.update(grads, state, params)
      params = {k: params[k] + updates[k] for k in params}
    miss = max(np.abs(params[k] - v[-1]).max() for k, v in _group(arrays, "traj/").items())
    assert miss > 1e-4
