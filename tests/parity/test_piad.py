"""PIAD against the golden traces of both public codes (2021: `train*`, 2019: `piad2019_variant*`).

Tolerances are those of the golden README: parameters 1e-6 absolute, losses 2e-6, weights 2e-6
relative, isolated critic gradients 5e-5 of the array's maximum. The vectors come from float32 runs.
Single passes run in float32 here too; training runs in float64, which leaves the rounding of one side
instead of two. One loosening: where Adam divides a gradient near zero by its own size, the first
updates are lr times a ratio of the reference's rounding errors, so single parameters may differ by a
small share of the learning rate: at most max(1e-6, 0.01 lr), and 1e-6 for the 99.9th percentile.
"""

import json

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from medae_jax.core.method import State
from medae_jax.losses import adversarial
from medae_jax.methods import _gradient_norms as gradient_norms, piad
from medae_jax.models import dpa_nets
from medae_jax.weights import piad as piad_weights
from tests.golden_cases import file_cases
from tests.parity.double import double
from tests.parity.dpa_golden import OPTIONS, UNSAID, narrow_vgg, nchw, nhwc, read, sub

COMPILED_FAST = True  # dozens of programs of a few steps each, in float64

NAMES = piad.TORCH_NAMES  # in the files: 2021 (anomaly_detection) and 2019 (piad)
_FILES = {"2021": "train*.json", "2019": "piad2019_variant*.json"}


def _cases():
  """(variant, file) of every case there is; collected, so that each is a test of its own."""
  return [pytest.param((variant, param.values[0]), marks=param.marks, id=param.id)
          for variant, pattern in _FILES.items() for param in file_cases("piad", pattern)]


def _config(variant, info, dtype):
  net, names = info["net"], NAMES[variant]
  adam = info["adam"]
  shared = adam.get("enc_dec", adam.get("enc_gen"))
  rule = lambda a: (*a.get("betas", (0.9, 0.999)), a.get("weight_decay", 0.0))
  b1, b2, decay = rule(shared)
  assert all(rule(a) == rule(shared) for a in adam.values()), "config.optim has one b1, b2, weight_decay"
  wasserstein = info.get("wasserstein", {"lambd": 1, "gradient_penalty": 10,
                                         "norm_penalty": 0.001, "target_gamma": 1.0})
  adv = {"name": "wasserstein", **UNSAID, **{OPTIONS.get(k, k): v for k, v in wasserstein.items()}}
  weights = {"image": info.get("img_weight", 0), **info["feature_weights"]}
  return ml_collections.ConfigDict({
      "method": {
          "name": "piad", "loss": "relative_perceptual_L1",
          "layers": "+".join(f"{w}*{k}" for k, w in weights.items() if w),
          "score": {"loss": "", "layers": ""}, "vgg_weights": "", "vgg_stats": "golden",
          "vgg_widths": (), "vgg_dtype": dtype, "cache_features": False,
          "n_critic": info["n_dis"],
          "adv_image": adv, "adv_latent": dict(adv), "ema": 0.0, "loss_limit": 1e6,
          "policy": {"name": "gradient_norms", "every": info["update_grad_norm_iter"],
                     "history": info.get("history_len", 200), "smooth": info.get("alpha", 0.05),
                     "measure": "norm" if variant == "2021" else "std", "average": "median"}},
      "model": {"variant": variant, "res": net["res"], "channels": net["idim"],
                "latent_dim": net["ldim"], "latent_res": net["lres"], "dtype": dtype,
                **{ours: _used_widths(variant, net, ours, theirs) for ours, theirs in names.items()}},
      "optim": {"lr": shared["lr"], "schedule": "constant", "b1": b1, "b2": b2, "weight_decay": decay,
                "lr_critic_image": adam[names["critic_image"]]["lr"],
                "lr_critic_latent": adam[names["critic_latent"]]["lr"]},
      "train": {"steps": len(info["rows"]), "batch_size": info["batch"], "accum": 1}})


def _used_widths(variant, net, ours, theirs):
  """The widths of a net without those at the fine end that the public code of 2021 drops."""
  widths = tuple(net[theirs])
  if variant == "2019" or ours == "critic_latent":
    return widths
  need = dpa_nets.needed_widths(net["res"], 1 if ours == "critic_image" else net["lres"])
  return widths[:need] if ours == "dec" else widths[-need:]


def _params(variant, arrays, prefix):
  return {net: piad_weights.convert(sub(arrays, f"{prefix}/{name}/"), net, variant)
          for net, name in NAMES[variant].items()}


class Trace:
  """A case run from its initial parameters: states and metrics after every iteration.

  With `wide` everything computes in float64 (within jax.enable_x64).
  """

  def __init__(self, variant, file, wide=False):
    self.variant, self.file, self.put = variant, file, double if wide else jnp.asarray
    self.arrays, self.info = read(file.with_suffix(".npz"))
    self.config = _config(variant, self.info, "float64" if wide else "float32")
    self.method = piad.Method(self.config)
    trunk = narrow_vgg(file.parent)
    params = jax.tree.map(self.put, {
        **_params(variant, self.arrays, "init"),
        "vgg": {"trunk": trunk.params, "stats": trunk.stats}})
    history = self.config.method.policy.history
    stats = {"policy": {net: gradient_norms.init(params[net], history) for net in ("enc", "dec")}}
    opt = {name: tx.init(piad._of(params, name)) for name, tx in self.method.tx.items()}
    self.first = State.create(params, stats, opt)
    self.parts = {}

  def apply(self, net, x):
    return self.method._apply(net, self.first.params, jnp.asarray(x))

  def run(self):
    """Yields (iteration from 1, state, metrics, critic metrics of every inner step)."""
    n, names = self.info["n_dis"], NAMES[self.variant]
    images, z = (self.put(nhwc(self.arrays[k])) for k in ("real_x", "real_z"))
    mix = {side: self.put(self.arrays[f"alpha_{names['critic_' + side]}"])
           for side in ("image", "latent")}
    step = jax.jit(self.method.iterate)
    critics = jax.jit(lambda s, d: jax.lax.scan(
        lambda s, x: self.method._critic_step(s, x, None), s, d)[1])
    state = self.first
    for t in range(len(self.info["rows"])):
      now = slice(t * (n + 1), (t + 1) * (n + 1))
      draws = {"image": images[now], "z": z[now],
               **{f"mix_{side}": a[t * n:(t + 1) * n, :, 0] for side, a in mix.items()}}
      draws["index"] = np.zeros(draws["image"].shape[:2], np.int32)
      inner = critics(state, {k: v[:n] for k, v in draws.items()})
      state, metrics = step(state, draws)
      yield t + 1, state, jax.device_get(metrics), jax.device_get(inner)


@pytest.fixture(scope="module", params=_cases(), ids=lambda case: case[1].stem)
def trace(request):
  return Trace(*request.param)


def test_forward(trace):
  """Every network at its initial parameters on the first draws."""
  first = {"x": nhwc(trace.arrays["real_x"][0]), "z": nhwc(trace.arrays["real_z"][0])}
  names = NAMES[trace.variant]
  inputs = {"enc": "x", "dec": "z", "critic_image": "x", "critic_latent": "z"}
  for net, kind in inputs.items():
    expected = trace.arrays[f"fwd/{names[net]}"]
    np.testing.assert_allclose(nchw(trace.apply(net, first[kind])), expected, atol=3e-6,
                               rtol=1e-5, err_msg=net)
  if "fwd/rec" in trace.arrays:
    recon = trace.apply("dec", trace.apply("enc", first["x"]))
    np.testing.assert_allclose(nchw(recon), trace.arrays["fwd/rec"], atol=3e-6, rtol=1e-5)


def test_critic_gradients(trace):
  """Gradients of both critic losses at initialisation, gradient penalty included."""
  names, arrays = NAMES[trace.variant], trace.arrays
  if not sub(arrays, f"iso/{names['critic_image']}_grad/"):
    pytest.skip("this case holds no isolated gradients")
  x, z = nhwc(arrays["real_x"][0]), nhwc(arrays["real_z"][0])
  fakes = {"critic_image": (x, trace.apply("dec", z)), "critic_latent": (z, trace.apply("enc", x))}
  for net, (real, fake) in fakes.items():
    loss = trace.method.critics[net.removeprefix("critic_")]
    alpha = arrays[f"alpha_{names[net]}"][0]
    grads = jax.grad(lambda p, net=net, loss=loss, real=real, fake=fake: adversarial.critic_loss(
        loss.name, lambda v: trace.method._apply(net, {net: p}, v), real, fake, alpha,
        **loss.options)[0])(
            trace.first.params[net])
    expected = piad_weights.convert(sub(arrays, f"iso/{names[net]}_grad/"), net, trace.variant)
    # 1e-6: the gradient of the last bias is the difference of two means of ones, in float32.
    _compare(grads, expected, lambda e: 5e-5 * np.abs(e).max() + 1e-6, net)


@pytest.mark.parametrize("given", _cases())
def test_training(given, float64):
  """Losses of every critic and generator step, weights, gradient sizes, parameters, scores."""
  trace = Trace(*given, wide=True)
  names, refreshes = NAMES[trace.variant], 0
  lr = max(trace.config.optim[k] for k in ("lr", "lr_critic_image", "lr_critic_latent"))
  state = None
  for (t, state, metrics, inner), row in zip(trace.run(), trace.info["rows"]):
    for net in ("critic_image", "critic_latent"):
      for k, expected in enumerate(row[names[net]]):
        for part, keys in (("wass", ("wass", "wasserstein_loss")), ("gp", ("gp", "gradient_penalty")),
                           ("norm", ("norm", "norm_penalty"))):
          value = next(expected[key] for key in keys if key in expected)
          _close(inner[f"{net}_{part}"][k], value, f"iteration {t} {net} step {k} {part}")
    losses = row.get("enc_dec", row.get("enc_gen"))
    rec = losses.get("image_rec_loss", losses.get("rec_loss"))
    _close(metrics["loss"], rec, f"iteration {t} rec")
    _close(metrics["adv_image"], losses["image_adv_loss"], f"iteration {t} adv image")
    _close(metrics["adv_latent"], losses["latent_adv_loss"], f"iteration {t} adv latent")
    refreshes += _check_policy(trace, t, state, metrics, row, refreshes)
    if f"after{t}/{names['enc']}/" in {k[:len(f"after{t}/{names['enc']}/")] for k in trace.arrays}:
      _check_params(trace, state, f"after{t}", lr)
  if "eval_x" in trace.arrays:
    batch = {"image": double(nhwc(trace.arrays["eval_x"]))}
    scores = jax.jit(trace.method.score)(state, batch)
    np.testing.assert_allclose(scores["score"], trace.arrays["eval_scores"], rtol=1e-5)
    assert scores["map"].shape == (*batch["image"].shape[:3], 1)


def _check_policy(trace, t, state, metrics, row, refreshes):
  """Weights after iteration t, and the newest sizes in the ring where it was refreshed."""
  losses = row.get("enc_dec", row.get("enc_gen"))
  names = NAMES[trace.variant]
  for net in ("enc", "dec"):
    keys = (f"rec_loss_weight_{net}", f"{names[net]}_rec_loss_weight")
    value = next(d[k] for d in (losses, row) for k in keys if k in d)
    np.testing.assert_allclose(metrics[f"weight_{net}"], value, rtol=2e-6,
                               err_msg=f"iteration {t} {net}")
  found = row.get("grad_norms", row.get("grad_std"))
  every = trace.config.method.policy.every
  assert (t % every == 0) == bool(found)
  if not found:
    return 0
  for net in ("enc", "dec"):
    init = sub(trace.arrays, f"init/{names[net]}/")
    for i, loss in enumerate(("adv", "rec")):
      # The file names a kernel as torch does, without "model." and with "/": a tree of sizes.
      sizes = {k.replace("model.", "").replace(".", "/"): v
               for k, v in ((k, k) for k in init if k.endswith("weight"))}
      filled = {k: np.zeros(v.shape, np.float32) for k, v in init.items()}
      for short, name in sizes.items():
        filled[name] = np.full(init[name].shape, found[names[net]][loss][short], np.float32)
      expected = [float(v.reshape(-1)[0]) for _, v in gradient_norms.kernels(
          piad_weights.convert(filled, net, trace.variant))]
      place = refreshes % state.stats["policy"][net]["sizes"].shape[-1]
      got = state.stats["policy"][net]["sizes"][i, :, place]
      np.testing.assert_allclose(got, expected, rtol=2e-5, err_msg=f"iteration {t} {net} {loss}")
  return 1


def _check_params(trace, state, prefix, lr):
  for net, expected in _params(trace.variant, trace.arrays, prefix).items():
    _compare(state.params[net], expected, lambda e: max(1e-6, 0.01 * lr), f"{prefix} {net}")
    off = np.concatenate([np.abs(a - b).ravel() for a, b in zip(
        jax.tree.leaves(state.params[net]), jax.tree.leaves(expected))])
    assert np.quantile(off, 0.999) <= 1e-6, f"{prefix} {net}"


def _compare(got, expected, tolerance, what):
  assert jax.tree.structure(jax.tree.map(np.asarray, got)) == jax.tree.structure(expected), what
  named = jax.tree_util.tree_flatten_with_path(expected)[0]
  for (path, e), g in zip(named, jax.tree.leaves(got)):
    np.testing.assert_allclose(g, e, atol=tolerance(e), rtol=0, err_msg=f"{what} {path}")


def _close(got, expected, what):
  """A loss: the README's 2e-6 absolute, and 2e-5 relative: Adam carries the float32 rounding of the
  vectors' run along. In float64 that run is reproduced to 2e-6, in float32 to 1.5e-5 at a rate of 1e-3.
  """
  np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6, err_msg=what)


# ------------------------------------------------------------------------------------- the policy
_POLICIES = pytest.mark.parametrize("file", file_cases("piad", "gradnorm_policy*.json"))


def _policy(file):
  return json.loads(file.read_text()), read(file.with_suffix(".npz"))[0]


def _policy_runs(file):
  """(case, adv [L,T], rec [L,T], weights [T], fresh policy, its refresh) of every case of a file."""
  info, arrays = _policy(file)
  step = jax.jit(lambda p, a, r: gradient_norms.refresh(p, a, r, smooth=info["alpha"]))
  for i, case in enumerate(info["cases"]):
    adv, rec = (double(arrays[f"{i}/{k}"]) for k in ("adv_norms", "rec_norms"))
    weights = arrays[f"{i}/weights"]
    fresh = gradient_norms.init({n: {"kernel": 0.0} for n in case["layers"]}, case["history_len"])
    yield case, adv, rec, weights[:, 1] / weights[:, 0], fresh, step


@_POLICIES
def test_policy(file, float64):
  """Weights after each refresh, stored in float64; 1e-6: the sizes are read as float32."""
  for case, adv, rec, expected, policy, step in _policy_runs(file):
    got = []
    for t in range(case["T"]):
      policy = step(policy, adv[:, t], rec[:, t])
      got.append(float(policy["weight"]))
    np.testing.assert_allclose(got, expected, rtol=1e-6, err_msg=str(case))


@_POLICIES
def test_smoothing(file, float64):
  info, arrays = _policy(file)
  names = [k[:-3] for k in arrays if k.startswith("ewma/") and k.endswith("/in")]
  assert names
  for name in names:
    values, expected = arrays[f"{name}/in"], arrays[f"{name}/out"]
    weights = gradient_norms._smoothing(len(values), info["alpha"], jnp.float64)
    np.testing.assert_allclose(weights @ values, expected, rtol=1e-12, err_msg=name)


@_POLICIES
def test_resume_inside_the_ring_is_exact(file, float64):
  """A policy split over two runs equals the unbroken one: the state holds the whole history."""
  case, adv, rec, expected, policy, step = max(_policy_runs(file), key=lambda run: run[0]["T"])
  weights = []
  for t in range(case["T"]):
    if t == case["T"] // 2:
      policy = jax.tree.map(jnp.asarray, jax.device_get(policy))  # through the host
    policy = step(policy, adv[:, t], rec[:, t])
    weights.append(float(policy["weight"]))
  np.testing.assert_allclose(weights, expected, rtol=1e-6)
