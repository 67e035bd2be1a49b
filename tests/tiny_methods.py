"""Test-only methods of the shapes that later ones have: the protocol must carry all of them.

BatchNorm (synchronised), two optimisers with a frozen network, two data streams with globally
normalised weights, stages that grow, and fitting only at the end.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from medae_jax.core import parallel
from medae_jax.core.method import BaseMethod, Need, Stage, State, example_keys


class _Net(nn.Module):
  width: int = 4
  norm: bool = False

  @nn.compact
  def __call__(self, x, train=False, axis_name=None):
    x = nn.Conv(self.width, (3, 3), use_bias=not self.norm)(x)  # its gradient would be 0/0 for Adam
    if self.norm:
      x = nn.BatchNorm(use_running_average=not train, axis_name=axis_name if train else None)(x)
    return nn.Conv(1, (3, 3))(nn.tanh(x))


def _recon_error(image, recon):
  return jnp.mean((image - recon) ** 2, (1, 2, 3))


class _Scored(BaseMethod):
  """Score of a reconstruction by params["net"]."""

  def _recon(self, state, image):
    return _Net().apply({"params": state.params["net"]}, image)

  def score(self, state, batch):
    recon = self._recon(state, batch["image"])
    amap = jnp.mean(jnp.abs(batch["image"] - recon), -1, keepdims=True)
    return {"recon": recon, "map": amap, "score": amap.mean((1, 2, 3))}

  def eval_step(self, state, batch, rng):
    return {"loss": _recon_error(batch["image"], self._recon(state, batch["image"]))}

  def inference_state(self, state):
    return state.replace(params={"net": state.params["net"]}, opt={})


class BatchNormMethod(_Scored):
  """Synchronised batch statistics and noise drawn on the device."""
  net = _Net(norm=True)

  def init(self, rng, batch):
    v = self.net.init(rng, batch["image"][:1])
    return State.create({"net": v["params"]}, {"net": v["batch_stats"]},
                        {"net": optax.adam(1e-2).init(v["params"])})

  def train_step(self, state, batch, rng, *, stage, axis_name):
    keys = example_keys(rng, batch["index"])
    noised = batch["image"] + 0.1 * jax.vmap(
        lambda k, x: jax.random.normal(k, x.shape))(keys, batch["image"])

    def loss_fn(p):
      out, new = self.net.apply({"params": p, "batch_stats": state.stats["net"]}, noised, train=True,
                                axis_name=axis_name, mutable=["batch_stats"])
      return jnp.mean(_recon_error(batch["image"], out)), new["batch_stats"]
    (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params["net"])
    loss, grads = parallel.pmean((loss, grads), axis_name)
    updates, opt = optax.adam(1e-2).update(grads, state.opt["net"])
    return state.replace(step=state.step + 1, stats={"net": stats}, opt={"net": opt},
                         params={"net": optax.apply_updates(state.params["net"], updates)}), {
                             "loss": loss}

  def _recon(self, state, image):
    return self.net.apply({"params": state.params["net"], "batch_stats": state.stats["net"]}, image)


class AdversarialMethod(_Scored):
  """Two optimisers, critic every step and generator every second, and a frozen network."""

  def init(self, rng, batch):
    image = jnp.asarray(batch["image"][:1])
    nets = {name: _Net().init(jax.random.fold_in(rng, i), image)["params"]
            for i, name in enumerate(("net", "critic", "frozen"))}
    tx = optax.adam(1e-3)
    return State.create(nets, opt={k: tx.init(nets[k]) for k in ("net", "critic")})

  def train_step(self, state, batch, rng, *, stage, axis_name):
    image, tx, p = batch["image"], optax.adam(1e-3), dict(state.params)
    run = lambda params, x: _Net().apply({"params": params}, x)

    def critic_loss(c):
      return jnp.mean(run(c, run(p["net"], image))) - jnp.mean(run(c, image)) + 1e-2 * sum(
          jnp.sum(x * x) for x in jax.tree.leaves(c))
    loss_c, grads = parallel.pmean(jax.value_and_grad(critic_loss)(p["critic"]), axis_name)
    updates, opt_c = tx.update(grads, state.opt["critic"])
    p["critic"] = optax.apply_updates(p["critic"], updates)

    def net_loss(n):
      recon = run(n, image)
      perceptual = jnp.mean((run(p["frozen"], recon) - run(p["frozen"], image)) ** 2)
      return perceptual + jnp.mean(_recon_error(image, recon)) - 1e-3 * jnp.mean(run(p["critic"], recon))

    def generator(_):
      loss, grads = parallel.pmean(jax.value_and_grad(net_loss)(p["net"]), axis_name)
      updates, opt = tx.update(grads, state.opt["net"])
      return optax.apply_updates(p["net"], updates), opt, loss
    keep = lambda _: (p["net"], state.opt["net"], jnp.zeros(()))
    p["net"], opt_n, loss = jax.lax.cond(state.step % 2 == 0, generator, keep, None)
    return state.replace(step=state.step + 1, params=p, opt={"net": opt_n, "critic": opt_c}), {
        "loss": loss, "critic": loss_c}


class TwoStreamMethod(_Scored):
  """Weights of the noisy pixels, normalised over the global batch, from a clean gradient."""
  needs = {f"{stream}/{name}": Need("BHW1" if name == "mask" else "BHWC")
           for stream in ("noisy", "clean") for name in ("image", "mask")}

  def init(self, rng, batch):
    params = _Net().init(rng, batch["noisy"]["image"][:1])["params"]
    return State.create({"net": params}, opt={"net": optax.sgd(0.1, 0.9).init(params)})

  def train_step(self, state, batch, rng, *, stage, axis_name):
    p, noisy, clean = state.params["net"], batch["noisy"], batch["clean"]
    run = lambda q, b: _Net().apply({"params": q}, b["image"])
    clean_loss = lambda q: jnp.mean((run(q, clean) - clean["mask"]) ** 2)
    g = parallel.pmean(jax.grad(clean_loss)(p), axis_name)
    pixel = lambda q: (run(q, noisy) - noisy["mask"]) ** 2
    _, u = jax.jvp(pixel, (p,), (g,))
    w = jnp.maximum(u, 0)
    w = jax.lax.stop_gradient(w / (parallel.psum(jnp.sum(w), axis_name) + 1e-12))
    loss, grads = jax.value_and_grad(lambda q: jnp.sum(w * pixel(q)))(p)
    loss, grads = parallel.psum((loss, grads), axis_name)
    updates, opt = optax.sgd(0.1, 0.9).update(grads, state.opt["net"])
    return state.replace(step=state.step + 1, opt={"net": opt},
                         params={"net": optax.apply_updates(p, updates)}), {"loss": loss}

  def eval_step(self, state, batch, rng):
    return {"loss": _recon_error(batch["clean"]["mask"], self._recon(state, batch["clean"]["image"]))}


class GrowingMethod(_Scored):
  """Two stages: the second has larger images, a smaller batch and one more network."""

  def stages(self):
    half = int(self.config.train.steps) // 2
    size, batch = self.config.data.image_size, self.config.train.batch_size
    return (Stage("small", half, {"image_size": size // 2}),
            Stage("large", self.config.train.steps - half, {"image_size": size,
                                                            "batch_size": batch // 2}))

  def init(self, rng, batch):
    params = _Net().init(rng, batch["image"][:1])["params"]
    return State.create({"net": params}, opt={"net": optax.adam(1e-2).init(params)})

  def grow(self, state, stage, rng, batch):
    head = _Net(2).init(rng, batch["image"][:1])["params"]
    params = {**state.params, "head": head}
    return state.replace(params=params, opt={"net": optax.adam(1e-2).init(params)})

  def train_step(self, state, batch, rng, *, stage, axis_name):
    alpha = jnp.clip((state.step - stage.begin + 1) / stage.steps, 0.0, 1.0)

    def loss_fn(p):
      tree = p if "head" in p else {"net": p["net"]}
      recon = _Net().apply({"params": tree["net"]}, batch["image"])
      if "head" in tree:
        recon = (1 - alpha) * recon + alpha * _Net(2).apply({"params": tree["head"]}, recon)
      return jnp.mean(_recon_error(batch["image"], recon))
    p = state.params if "head" in state.params else {"net": state.params["net"]}
    loss, grads = parallel.pmean(jax.value_and_grad(loss_fn)(p), axis_name)
    opt = state.opt["net"]
    if "head" not in p:  # the optimiser of the first stage knows the bare network
      updates, opt = optax.adam(1e-2).update(grads["net"], opt)
      params = {"net": optax.apply_updates(p["net"], updates)}
    else:
      updates, opt = optax.adam(1e-2).update(grads, opt)
      params = optax.apply_updates(p, updates)
    return state.replace(step=state.step + 1, params=params, opt={"net": opt}), {"loss": loss}


class FitOnlyMethod(BaseMethod):
  """Nothing to train: mean and deviation of every pixel over the normal data."""
  fits = True

  def stages(self):
    return ()

  def init(self, rng, batch):
    return State.create({})

  def finalize(self, state, batches):
    total, square, count = 0.0, 0.0, 0
    for batch in batches:
      valid = batch["valid"][:, None, None, None]
      total = total + (batch["image"] * valid).sum(0)
      square = square + (batch["image"] ** 2 * valid).sum(0)
      count += valid.sum()
    mean = total / count
    return state.replace(extra={"mean": jnp.asarray(mean), "sd": jnp.sqrt(jnp.maximum(
        jnp.asarray(square / count - mean**2), 0)) + 0.05})

  def score(self, state, batch):
    recon = jnp.broadcast_to(state.extra["mean"], batch["image"].shape)
    amap = jnp.mean(jnp.abs(batch["image"] - recon) / state.extra["sd"], -1, keepdims=True)
    return {"recon": recon, "map": amap, "score": amap.mean((1, 2, 3))}
