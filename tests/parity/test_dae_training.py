"""Update rule, training steps and training loop of the DAE against the reference's, in float64.

Adam divides a gradient near its eps by itself, so that float32 steps such an entry with an
undetermined sign, and the bound would have to let a third of a step pass. In float64 only the
rounding of the stored numbers (float32) is left: 1e-6, the README's figure; 1e-12 where they are
stored in float64. Every case that the folder holds is read, with its own hyper-parameters.
"""

import re

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from medae_jax.core.method import Stage, State
from medae_jax.methods import dae
from medae_jax.optim import adam, schedules
from medae_jax.weights import dae as dae_weights
from tests.golden_cases import golden_files
from tests.parity import dae_golden as g
from tests.parity.double import double

COMPILED_FAST = True  # LLVM's passes take longer than the few steps


def _start(method, reference, depth):
  """The state at a case's initial parameters, in float64."""
  params = double(dae_weights.from_torch(reference, depth))
  return State.create({"net": params}, opt={"net": method._tx.init(params)})


def _check_parameters(state, depth, expected, what):
  ours = g.to_reference(state.params["net"], depth)
  for key, value in expected.items():
    np.testing.assert_allclose(ours[key], value, atol=1e-6, rtol=0, err_msg=f"{what} {key}")


@g.cases("unet*.npz")
def test_training_steps(file):
  """`train_step` itself, fed the noised input through a network that sees no further noise."""
  arrays, meta = g.load(file)
  reference = g.group(arrays, "param/")
  depth, wf = g.sizes(reference)
  with jax.enable_x64(True):
    method = dae.Method(g.config(depth, wf, "float64", g.optim(
        meta, lr=meta["lr0"], half_period=meta["T_max"], epoch_steps=meta["scheduler_step_every"])))
    x, mask, target = (g.nhwc(arrays[k]) for k in ("x", "mask", "target"))
    method.corrupt = lambda batch, rng: (double(x), mask)
    state, steps = _start(method, reference, depth), len(arrays["step_loss"])
    step = jax.jit(lambda s: method.train_step(s, {"image": double(target)}, jax.random.key(0),
                                               stage=Stage("main", steps), axis_name=None))
    after = {int(m[1]) for m in (re.match(r"after(\d+)/", k) for k in arrays) if m}
    assert after <= set(range(1, steps + 1))
    for i in range(steps):
      state, metrics = step(state)
      for ours, theirs in (("loss", "step_loss"), ("lr", "step_lr"), ("grad_norm", "step_grad_norm")):
        if theirs in arrays:
          np.testing.assert_allclose(metrics[ours], arrays[theirs][i], rtol=1e-6,
                                     err_msg=f"{theirs} {i}")
      if i + 1 in after:
        _check_parameters(state, depth, g.group(arrays, f"after{i + 1}/"), f"step {i + 1}")


@g.cases("optimizer*.npz")
def test_update_rule(file):
  """The rule alone: the file is float64, so that nothing but the order of operations differs."""
  arrays, meta = g.load(file)
  with jax.enable_x64(True):
    o = ml_collections.ConfigDict(g.optim(meta, lr=meta["lr0"], half_period=meta["T_max"],
                                         epoch_steps=meta["scheduler_step_every"]))
    steps = len(arrays["lr"])
    tx, schedule = dae.build_optimizer(ml_collections.ConfigDict(dict(optim=o)), steps), (
        schedules.build(o, steps))
    params = double(g.group(arrays, "init/"))
    state = tx.init(params)
    for t in range(steps):
      grads = double({k: v[t] for k, v in g.group(arrays, "grad/").items()})
      np.testing.assert_allclose(optax.global_norm(grads), arrays["grad_norm"][t], rtol=1e-12)
      np.testing.assert_allclose(schedule(jnp.int32(t)), arrays["lr"][t], rtol=1e-12,
                                 atol=1e-12 * meta["lr0"])
      updates, state = tx.update(grads, state, params)
      params = optax.apply_updates(params, updates)
      for k, v in g.group(arrays, "traj/").items():
        np.testing.assert_allclose(params[k], v[t], atol=1e-12, rtol=0, err_msg=f"{k} {t}")


def _half_period(rates, iterations):
  """T_max of lr0/2 (1 + cos(pi e / T_max)), from the rates of the first two epochs."""
  if len(rates) <= iterations:
    return 1  # a single epoch: no rate but the first is used
  return round(np.pi / np.arccos(2 * rates[iterations] / rates[0] - 1))


@g.cases("training_loop*.npz")
def test_miniature_training_loop(file):
  """Pseudo-epochs with recorded noise: training, validation, selection of the best epoch."""
  arrays, meta = g.load(file)
  reference = g.group(arrays, "param/")
  depth, wf = g.sizes(reference)
  epochs = len(arrays["train_loss"])
  iterations = len(arrays["lr"]) // epochs
  batch = arrays["coarse"].shape[1]
  val_batches = len(arrays["coarse"]) // epochs - iterations
  draws = iter(range(len(arrays["coarse"])))

  def batch_of(images, number):
    n = len(images) // batch
    k = next(draws)
    return {**double({"image": g.nhwc(images[(number % n) * batch:(number % n + 1) * batch]),
                      "noise": g.nhwc(arrays["coarse"][k])}),
            "roll": jnp.broadcast_to(jnp.asarray(arrays["roll"][k], jnp.int32), (batch, 2))}

  with jax.enable_x64(True):
    method = dae.Method(g.config(depth, wf, "float64", g.optim(
        meta, lr=float(arrays["lr"][0]), epoch_steps=iterations,
        half_period=meta.get("T_max", _half_period(arrays["lr"], iterations)))))
    state = _start(method, reference, depth)
    step = jax.jit(lambda s, b: method.train_step(s, b, jax.random.key(0), stage=Stage("main", 1),
                                                  axis_name=None))
    evaluate = jax.jit(lambda s, b: jnp.mean(method.eval_step(s, b, jax.random.key(0))["loss"]))
    best, saved, it = np.inf, [], 0
    for epoch in range(epochs):
      train = []
      for _ in range(iterations):
        state, metrics = step(state, batch_of(arrays["train_x"], it))
        np.testing.assert_allclose(metrics["lr"], arrays["lr"][it], rtol=1e-9)
        train.append(float(metrics["loss"]))
        it += 1
      val = np.mean([evaluate(state, batch_of(arrays["val_x"], v)) for v in range(val_batches)])
      np.testing.assert_allclose(np.mean(train), arrays["train_loss"][epoch], rtol=1e-6)
      np.testing.assert_allclose(val, arrays["val_loss"][epoch], rtol=1e-6)
      if val < best:
        best = val
        saved.append(epoch + 1)
    assert saved == list(arrays["saved_epochs"])
    _check_parameters(state, depth, g.group(arrays, "final/"), "final")


def test_wrong_update_rules_are_caught():
  """The vectors separate our AMSGrad from the one with a bias-corrected maximum."""
  for file in golden_files(g.FAMILY, "optimizer*.npz"):
    arrays, meta = g.load(file)
    with jax.enable_x64(True):
      o = g.optim(meta)
      tx = optax.chain(adam.clip_by_global_norm(o["clip"]),
                       optax.add_decayed_weights(o["weight_decay"]),
                       optax.amsgrad(lambda t, a=arrays: jnp.asarray(a["lr"])[t], o["b1"], o["b2"],
                                     o["eps"]))
      params = double(g.group(arrays, "init/"))
      state = tx.init(params)
      for t in range(len(arrays["lr"])):
        grads = double({k: v[t] for k, v in g.group(arrays, "grad/").items()})
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
      miss = max(np.abs(params[k] - v[-1]).max() for k, v in g.group(arrays, "traj/").items())
    assert miss > 1e-9, file  # a thousand times what the rule is held to
