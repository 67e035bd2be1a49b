"""Reconstruction and adversarial losses of DPA against the public code's values and gradients."""

import jax
import numpy as np
import pytest

from medae_jax.losses import adversarial as la, perceptual as lp
from medae_jax.methods import _growing
from tests.golden_cases import file_cases
from tests.parity import dpa_golden as g
from tests.parity.double import double

COMPILED_FAST = True  # a program or two for each of many losses
# float32 sums in another order (README: 3e-6); atol because critic means nearly cancel.
VALUES = dict(rtol=2e-5, atol=5e-7)


def _values(scores):
  """VALUES for a mean of `scores`."""
  return {**VALUES, "atol": 5e-7 * max(1, np.abs(scores).max())}


def _gradients(got, want, message, noise=1e-9):
  """Within 1e-4 of the array's largest entry, the golden README's figure; `noise` is what float32 leaves."""
  np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max() + noise, rtol=0,
                             err_msg=message)


def _pairs():
  """(file, kind of images in it, such as "rgb")."""
  found = []
  for param in file_cases("dpa", "rec_losses*.npz"):
    file = param.values[0]
    kinds = sorted({k.split("/")[0] for k in np.load(file).files}) if file else [None]
    found += [pytest.param((file, kind), marks=param.marks, id=f"{param.id}-{kind}")
              for kind in kinds]
  return found


@pytest.fixture(scope="module", params=_pairs())
def data(request):
  """(arrays of one kind, the narrow trunk)."""
  file, kind = request.param
  return g.sub(g.read(file)[0], f"{kind}/"), g.narrow_vgg(file.parent)


def test_pixel_losses(data):
  a, _ = data
  image, recon = g.nhwc(a["x"]), g.nhwc(a["y"])
  for name, fn in (("l1", lp.l1), ("l2", lp.l2)):
    each = fn(image, recon)
    np.testing.assert_allclose(each, a[f"{name}/none"], **VALUES)
    np.testing.assert_allclose(each.mean(), a[f"{name}/mean"], **VALUES)
    np.testing.assert_allclose(each.sum(), a[f"{name}/sum"], **VALUES)
  want = g.nhwc(a["l1/pixelwise"])  # per channel there; our map is the mean over channels
  found = lp.anomaly_map((lp.Term("l1"),), None, image[:len(want)], recon[:len(want)])
  np.testing.assert_allclose(found, want.mean(-1, keepdims=True), **VALUES)


def test_perceptual_losses_with_every_switch(data):
  a, trunk = data
  image, recon = g.nhwc(a["x"]), g.nhwc(a["y"])
  names = sorted({k.split("/")[0] for k in a if k.startswith("perc_fn")})
  assert names
  for name in names:
    switches = [bool(int(part[-1])) for part in name.split("_")[1:]]
    term = lp.Term("perceptual", 1.0, {0: {"r32": 1.0}}, *switches)
    np.testing.assert_allclose(lp.per_image([term], trunk, image, recon), a[f"{name}/none"],
                               err_msg=name, **VALUES)
    if f"{name}/grad_y" in a:
      grad = jax.grad(lambda y, t=term: lp.per_image([t], trunk, image, y).mean())(recon)
      _gradients(g.nchw(grad), a[f"{name}/grad_y"], name)
    if f"{name}/pixelwise" in a:
      found = lp.anomaly_map([term], trunk, image, recon)
      np.testing.assert_allclose(g.nchw(found), a[f"{name}/pixelwise"], rtol=1e-4, atol=1e-6,
                                 err_msg=name)


def test_relative_perceptual_loss_of_several_layers(data):
  a, trunk = data
  image, recon = g.nhwc(a["x"]), g.nhwc(a["y"])
  cases = {"relpercL1_multi": {"image": 0.5, "r12": 1, "r32": 2, "r42": 0.25},
           "relpercL1_imgonly": {"image": 1}}
  for name, weights in cases.items():
    terms = lp.parse("relative_perceptual_L1", layers={0: weights})
    each = lp.per_image(terms, trunk, image, recon)
    for reduction, value in (("none", each), ("mean", each.mean()), ("sum", each.sum())):
      if f"{name}/{reduction}" in a:
        np.testing.assert_allclose(value, a[f"{name}/{reduction}"], err_msg=name, **VALUES)
  composed = sorted({k.split("/")[0] for k in a if k.startswith("compose_w")})
  assert composed
  for name in composed:
    terms = lp.parse(f"relative_perceptual_L1 + {name.removeprefix('compose_w')}*l1",
                     layers={0: {"r32": 1}})
    each = lp.per_image(terms, trunk, image, recon)
    np.testing.assert_allclose(each, a[f"{name}/none"], err_msg=name, **VALUES)
    np.testing.assert_allclose(each.mean(), a[f"{name}/mean"], err_msg=name, **VALUES)


def test_growing_losses(data):
  a, trunk = data
  image, recon = g.nhwc(a["x"]), g.nhwc(a["y"])
  res = image.shape[1]
  names = [k for k in a if k.startswith("pg_")]
  assert names
  for name in names:
    loss, smooth, stage, progress = name.split("/")
    relative = loss.endswith("L1")
    term = lp.Term("perceptual", 1.0, {res // 2: {"r22": 1.0}, res: {"r32": 1.0}}, relative,
                   relative, relative)
    if stage == "trns" and smooth == "smooth1":
      found = _growing.blended_loss([term], trunk, trunk, image, recon, res=res,
                                    alpha=float(progress[1:]))
    else:
      found = lp.per_image([term], trunk, image, recon)
    np.testing.assert_allclose(found, a[name], err_msg=name, **VALUES)


def test_cached_features_change_nothing(data):
  arrays, trunk = data
  image, recon = g.nhwc(arrays["x"]), g.nhwc(arrays["y"])
  terms = lp.parse("relative_perceptual_L1", layers={0: {"r12": 1, "r32": 2}})
  real = lp.real_features(trunk, image, ["r12", "r32"])
  np.testing.assert_array_equal(lp.per_image(terms, trunk, image, recon, real=real),
                                lp.per_image(terms, trunk, image, recon))


# ------------------------------------------------------------------------------------ adversarial
@pytest.fixture(scope="module", params=file_cases("dpa", "adversarial*.npz"))
def adversarial(request):
  arrays, case = g.read(request.param)
  if "iso/alpha" not in arrays:
    pytest.skip("this case records no isolated losses")
  c = case["config"]
  kwargs = dict(c["ddis"]["kwargs"])
  net = g.encoder(c["ddis"]["type"], kwargs.pop("inner_dims"), res=c["max_image_res"],
                  latent_res=1, latent_dim=1, kwargs=kwargs)
  every = g.variables(g.sub(arrays, "init/ddis/"), c["ddis"]["type"])["params"]
  image = g.nhwc(arrays["train_images"])
  made = net.init(jax.random.key(0), image[:1])["params"]
  params = {name: every[name] for name in made}  # of the last stage only
  return arrays, net, params, image, c["ddis"]["type"]


def test_wasserstein(adversarial, float64):
  """In float64: the sides of a critic's loss nearly cancel; small gradients are float32's rounding."""
  arrays, net, params, image, kind = adversarial
  net = net.clone(dtype=np.float64)
  params, image, alpha = double((params, image, arrays["iso/alpha"]))
  n = len(alpha)
  real, fake = image[:n], image[n:2 * n]
  apply = jax.jit(net.apply)
  critic = lambda p: lambda x: apply({"params": p}, x)
  values = _values(arrays["iso/dis_x"])
  np.testing.assert_allclose(critic(params)(real), arrays["iso/dis_x"], rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(critic(params)(fake), arrays["iso/dis_fake"], rtol=1e-4, atol=1e-6)
  options = dict(wasserstein_weight=1, gradient_penalty=10, norm_penalty=0.001)
  loss = lambda p: la.critic_loss("wasserstein", critic(p), real, fake, alpha, **options)
  (total, parts), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
  np.testing.assert_allclose(total, arrays["iso/wass_total"], **values)
  for name in ("wass", "norm", "gp"):
    np.testing.assert_allclose(parts[name], arrays[f"iso/wass_{name}"], **values)
  want, _ = g.dpa_torch.convert(g.sub(arrays, "iso/wass_grad/"), kind)
  noise = 1e-6 * max(np.abs(x).max() for x in jax.tree.leaves(want))  # of the reference, in float32
  for name in want:
    jax.tree.map(lambda a, b, n=name: _gradients(a, b, n, noise), grads[name], want[name])
  total, parts = jax.jit(lambda p: la.wasserstein_critic(
      critic(p), real, fake, alpha, wasserstein_weight=0.7, gradient_penalty=5, norm_penalty=0.01,
      target_gamma=2))(params)
  np.testing.assert_allclose(total, arrays["iso/wass2_total"], **values)
  for name in ("wass", "norm", "gp"):
    np.testing.assert_allclose(parts[name], arrays[f"iso/wass2_{name}"], **values)
  scores = critic(params)(fake)
  np.testing.assert_allclose(la.generator_loss("wasserstein", scores), arrays["iso/wass_gen"],
                             **values)


def test_logistic_and_least_squares(adversarial):
  arrays, net, params, image, _ = adversarial
  n = len(arrays["iso/alpha"])
  real, fake = image[:n], image[n:2 * n]
  apply = jax.jit(net.apply)
  critic = lambda x: apply({"params": params}, x)
  for kind in ("real", "fake", "real_fake"):
    total, parts = la.logistic_critic(critic, real, fake, reg_alpha=5, reg_type=kind)
    for name, value in (("total", total), *parts.items()):
      np.testing.assert_allclose(value, np.squeeze(arrays[f"iso/nnl_{kind}_{name}"]),
                                 err_msg=f"{kind} {name}", **VALUES)
  np.testing.assert_allclose(la.generator_loss("logistic", critic(fake)), arrays["iso/nnl_gen"],
                             **VALUES)
  total, _ = la.critic_loss("least_squares", critic, real, fake, None)
  np.testing.assert_allclose(total, arrays["iso/ls_dis"], **VALUES)
  np.testing.assert_allclose(la.generator_loss("least_squares", critic(fake)),
                             arrays["iso/ls_gen"], **VALUES)
