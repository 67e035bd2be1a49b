"""Autoencoders with one loss against the golden traces, in float64: outputs, gradients, two updates.

Batch statistics leave the biases before them without a gradient, which Adam moves by the rounding of the
reference: these and the running means are left out, as the README says.
"""

import jax
import numpy as np
import pytest

from medae_jax.core.method import Stage, State
from tests.golden_cases import file_cases
from tests.parity.ae_zoo.cases import Case, before_norm, double, jnp, nhwc
from tests.parity.morphaeus import networks

COMPILED_FAST = True  # many programs of a few steps each, in float64
pytestmark = pytest.mark.usefixtures("float64")
_ACT = {"swish": "swish", "relu": "relu", "leakyrelu": "leaky_relu"}


def _ae_fields(case):
  c, m = case.c, case.c["model"]
  loss, alpha = c["loss"].lower(), c.get("alfa", 0)
  dense = any(k.startswith("sd_after/lin_enc") for k in case.z)
  fields = {"method.loss": f"{loss} + {4 * alpha}*perceptual" if alpha else loss, "model.norm": "none",
            "model.widths": tuple(m["channels"]), "model.strides": tuple(m["strides"]),
            "model.kernel": m["kernel_size"], "model.act": _ACT.get(m["act"], "swish"), "model.slope": 1.0,
            "model.upsampling": "resize" if m["deconv_mode"] == "stride" else "transposed",
            "model.latent": 0, "method.vgg_dtype": "float64", "method.vgg_weights": "golden"}
  if m["norm"] == "batch":
    fields["model.norm"] = {"eval": "frozen", "train": "batch"}[c["bn_mode"]]
  if dense:
    fields["model.squeeze"] = case.z["sd_after/lin_enc.bias"].shape[0]
    fields["model.latent"] = case.z["sd_after/lin_lay_enc.bias"].shape[0]
  return fields


def _vae_fields(case):
  m = case.c["model"]
  return {"model.widths": tuple(m["h_size"]), "model.latent": m["z_dim"],
          "method.sample": "noise_draw0" in case.z,
          "method.rec_log_std": float(case.c["loss"].rpartition("=")[2])}


def _beta_fields(case):
  loss = case.c["loss"]
  widths = {k: case.z[f"sd_after/{k}.bias"].shape[0] for k in ("encoder.0", "decoder.0")}
  return {"model.latent": case.c["z_dim"], "model.width": widths["encoder.0"],
          "model.hidden": widths["decoder.0"],
          "method.regulariser": {"B": "capacity", "H": "beta"}[loss["loss_type"]],
          "method.beta": float(loss["beta"]), "method.gamma": float(loss["gamma"]),
          "method.max_capacity": float(loss["max_capacity"])}


def _run(case, code_of, skip=()):
  """Both steps: outputs, gradients, losses and parameters compared; code_of(use, image) of the first."""
  method, state, z, first = case.method, case.state(), case.z, None

  @jax.jit
  def step(state, part):
    image = part["image"]
    use = method.use(state, image, train=True)
    recon = method.reconstruct(use, image, part.get("noise"))
    return (recon, code_of(method.use(state, image, train=True), image)), *method.step(state, part)
  for i, image in enumerate(case.images):
    part = {"image": image}
    if f"noise_draw{i}" in z:
      part["noise"] = case.draws(i, 1)[0]
    (recon, code), state, metrics = step(state, part)
    first = first if i else code
    np.testing.assert_allclose(recon, nhwc(z[f"rec_step{i}"]), rtol=2e-5, atol=2e-5, err_msg=f"step {i}")
    expected = z["loss_rec"][i] + (z["alfa"] * z["pl"][i] if "pl" in z else 0)
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5, err_msg=f"step {i}")
    if i == 0:
      case.compare("grad_step0/", case.gradients(state, "net"), share=1e-4, skip=skip)
  count = case.compare("sd_after/", case.published(state.params, state.stats), atol=1e-5, skip=skip)
  assert count + len(set(skip) & set(case.shapes)) == len(case.shapes)
  return first


def _codes(case, found, names):
  for name, value in zip(names, found):
    expected = case.z[f"aux_step0/{name}"]
    value = np.asarray(value) if value.ndim == 2 else np.moveaxis(np.asarray(value), -1, 1)
    np.testing.assert_allclose(value.reshape(expected.shape), expected, rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("file", file_cases("ae_zoo", "ae_*.npz"))
def test_spatial_and_dense(file):
  with np.load(file) as z:
    trunk = networks.trunk if any(k.startswith("vgg/") for k in z.files) else lambda z: {}
  case = Case(file, "ae_s", _ae_fields, lambda z: double(trunk(z)))
  skip = before_norm(case.shapes) if case.config.model.norm == "batch" else ()
  _codes(case, _run(case, lambda use, x: (case.method.code(use, x)[1],), skip), ("z",))


@pytest.mark.parametrize("file", file_cases("ae_zoo", "vae*_mode*.npz"))
def test_vae(file):
  case = Case(file, "vae", _vae_fields)
  mean, log_std = _run(case, lambda use, x: use("enc", x))
  _codes(case, (mean, np.exp(log_std)), ("z_mu", "z_logvar"))


def _beta_files():
  """Every beta_vae*.npz but those of the loss alone, which test_losses.py reads."""
  every = [p for p in file_cases("ae_zoo", "beta_vae*.npz") if not str(p.id).startswith("beta_vae_loss")]
  return every or file_cases("ae_zoo", "beta_vae.npz")


@pytest.mark.parametrize("file", _beta_files())
def test_beta_vae(file):
  case = Case(file, "beta_vae", _beta_fields)
  _codes(case, _run(case, lambda use, x: use("enc", x)), ("z_mu", "z_logvar"))


@pytest.mark.parametrize("file", file_cases("ae_zoo", "dae*.npz"))
def test_denoising(file):
  """methods/dae.py with its loss over all pixels: noise, outputs, gradients with the decay, updates."""
  case = DenoisingCase(file)
  method, z = case.method, case.z
  params, _ = case.trees(case.tensors())
  state = State.create(params, opt={"net": method._tx.init(params["net"])})

  @jax.jit
  def step(state, batch):
    noised, _ = method.corrupt(batch, None)
    return (noised, method._apply(state.params["net"], noised)), *method.train_step(
        state, batch, jax.random.key(0), stage=Stage("main", 9), axis_name=None)
  first = state.params
  for i, image in enumerate(case.images):
    batch = {"image": image, "noise": double(nhwc(z[f"noise_draw{i}"])),
             "roll": jnp.broadcast_to(jnp.asarray(z["rolls_row_col"][i], jnp.int32), (len(image), 2))}
    (noised, recon), state, metrics = step(state, batch)
    np.testing.assert_allclose(noised, nhwc(z[f"noisy_step{i}"]), rtol=0, atol=2e-6)
    np.testing.assert_allclose(recon, nhwc(z[f"rec_step{i}"]), rtol=5e-5, atol=5e-5)
    np.testing.assert_allclose(metrics["loss"], z["loss_rec"][i], rtol=1e-5)
    if i == 0:
      decay = case.published(first)
      found = {k: v - case.config.optim.weight_decay * decay[k]
               for k, v in case.gradients(State.create({}, opt=state.opt), "net").items()}
      case.compare("grad_step0/", found, share=1e-4)
  assert case.compare("sd_after/", case.published(state.params), atol=1e-5) == len(case.shapes)


class DenoisingCase(Case):
  """The DAE keeps its one network under "net", without the groups of the family."""

  def __init__(self, file):
    super().__init__(file, "dae", _dae_fields)

  def gradients(self, state, group):
    found = {"opt": state.opt}
    moments = next(s.mu for s in found["opt"][group] if hasattr(s, "mu"))
    return self.published({"net": jax.tree.map(lambda m: m / (1 - self.config.optim.b1), moments)})


def _dae_fields(case):
  m, noise = case.c["model"], case.c["noise"]
  rule = dict(part.split("=") for part in case.c["optimizer"].split()[1:])
  return {"model.depth": m["depth"], "model.wf": m["wf"], "method.noise": noise | {"noise_roll": "batch"},
          "method.loss": case.c["loss"].lower(), "optim.lr": float(rule["lr"]),
          "optim.weight_decay": float(rule["weight_decay"]), "optim.amsgrad": rule["amsgrad"] == "True"}
