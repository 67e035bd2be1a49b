"""Training of DPA against the public code's: plain and adversarial runs, a converted model, ROC AUC."""

import jax
import ml_collections
import numpy as np
import pytest

from medae_jax import convert
from medae_jax.core import method as method_lib, trained
from medae_jax.methods import dpa
from medae_jax.metrics import detection
from tests.golden_cases import file_cases, golden_files
from tests.parity import dpa_golden as g
from tests.parity.double import double

COMPILED_FAST = True  # dozens of programs of a few steps each, in float64


def _plain_config(case, folder, out, **fields):
  """The config of a plain training case."""
  config = g.config(
      {**g.loss_fields(case["loss_type"], case["loss_kwargs"]), **g.vgg_files(folder, out)},
      g.model_fields(case["kind"], case["enc_inner_dims"], case["dec_inner_dims"], res=case["res"],
                     latent_res=case["latent_res"], latent_dim=case["latent_dim"],
                     enc_kwargs=case["enc_kwargs"], dec_kwargs=case["dec_kwargs"]),
      adam=case["adam"], steps=case["steps"], batch=case["batch"], **fields)
  with config.unlocked():
    config.data = ml_collections.ConfigDict(dict(
        name="synthetic_textures", image_size=case["res"], channels=case["image_dim"]))
  return config


def _one_config(case):
  """Whether config.model has both networks: one norm, pad and use_wscale, no minibatch deviation."""
  enc, dec = case["enc_kwargs"], case["dec_kwargs"]
  shared = {"norm": "none", "pad_type": "zero", "use_wscale": False}
  return not enc.get("use_mbstddev") and all(enc.get(k, v) == dec.get(k, v) for k, v in shared.items())


def _nets(case):
  """The two networks of a case in float64."""
  shared = dict(res=case["res"], latent_res=case["latent_res"])
  enc = g.encoder(case["kind"], case["enc_inner_dims"], latent_dim=case["latent_dim"],
                  kwargs=case["enc_kwargs"], **shared)
  dec = g.decoder(case["kind"], case["dec_inner_dims"], channels=case["image_dim"],
                  kwargs=case["dec_kwargs"], **shared)
  return {n: net.clone(dtype=np.float64) for n, net in (("enc", enc), ("dec", dec))}


def _close_image(found, want):
  """To 3e-5 of the largest value: what fast float32 convolutions of the public code leave."""
  np.testing.assert_allclose(g.nchw(found), want, rtol=1e-4, atol=3e-5 * max(1, np.abs(want).max()))


@pytest.mark.slow
@pytest.mark.parametrize("file", file_cases("dpa", "train_*.npz"))
def test_plain_training(file, tmp_path, float64):
  arrays, case = g.read(file)
  kind, lr = case["kind"], case["adam"]["lr"]
  method = dpa.Method(_plain_config(case, file.parent, tmp_path, double=True))
  if not _one_config(case):
    method._nets = lambda *stage: _nets(case)
  stage, = method_lib.stages_of(method)
  images = double(g.nhwc(arrays["x"]))
  batch = lambda i: {"image": images[i], "index": np.arange(len(images[i]), dtype=np.int32)}
  state = g.put(method_lib.fresh_state(method, jax.random.key(0), batch(0)),
               *g.params(arrays, "", kind))

  @jax.jit
  def passes(state, image):  # training mode, as the reference recorded them
    nets = {n: state.params[n] for n in ("enc", "dec")}
    recon, _ = method._reconstruct(state.params, state.stats, image, 1.0, train=True)
    return recon, jax.grad(lambda nets: _mean_loss(method, state, nets, image))(nets)
  recon, grads = passes(state, images[0])
  _close_image(recon, arrays["rec0"])
  first, _ = g.params(arrays, "grad0/", kind)
  for net in first:  # 2e-5 of each array's largest entry, 1e-8 where that is rounding
    jax.tree.map(lambda a, b: np.testing.assert_allclose(
        a, b, rtol=0, atol=2e-5 * np.abs(b).max() + 1e-8), grads[net], first[net])

  step = g.step(method, stage)
  for i in range(case["steps"]):
    state, metrics = step(state, batch(i))
    np.testing.assert_allclose(metrics["loss"], arrays["loss_steps"][i], **g.LOSS)
    if g.has(arrays, f"after{i + 1}/"):
      wanted, _ = g.params(arrays, f"after{i + 1}/", kind)
      g.close_params(state.params, wanted, close=1e-3 * lr + 2e-6, far=0.3 * lr, grads=first,
                    what=f"step {i + 1}")
  out = jax.jit(method.score)(state, batch(0))
  np.testing.assert_allclose(out["score"], arrays["final_scores"], rtol=3e-5)
  _close_image(out["recon"], arrays["final_rec"])


@pytest.mark.slow
def test_a_published_style_checkpoint_is_converted(tmp_path):
  """enc.* and dec.* with torch's names -> a workdir; its reconstruction is the reference's."""
  file = next(f for f in golden_files("dpa", "train_*.npz"))
  arrays, case = g.read(file)
  config = _plain_config(case, file.parent, tmp_path)
  last = f"after{case['steps']}/"
  np.savez(tmp_path / "model.npz", **{f"{net}.{k}": v for net in ("enc", "dec")
                                      for k, v in g.sub(arrays, f"{last}{net}/").items()})
  convert.convert(tmp_path / "model.npz", config, tmp_path / "work")
  run = trained.load(tmp_path / "work")
  out = jax.jit(run.method.score)(run.state, {"image": g.nhwc(arrays["x"])[0]})
  # one pass in float32: sums in another order
  np.testing.assert_allclose(g.nchw(out["recon"]), arrays["final_rec"], rtol=1e-4, atol=2e-5)
  np.testing.assert_allclose(out["score"], arrays["final_scores"], rtol=1e-4)


def _mean_loss(method, state, nets, image):
  params = {**state.params, **nets}
  recon, _ = method._reconstruct(params, state.stats, image, 1.0, train=True)
  return method.perceptual.losses(params, state.stats, image, recon, res=image.shape[1]).mean()


@pytest.mark.slow
@pytest.mark.parametrize("file", file_cases("dpa", "adversarial*.npz"))
def test_adversarial_run(file, tmp_path, float64):
  arrays, case = g.read(file)
  c = case["config"]
  kind, lr, n_dis = c["enc"]["type"], c["adam_kwargs"]["lr"], c["n_dis"]
  size = c["batch_sizes"][str(c["max_image_res"])]
  weight = c["loss_weights"]["image_adv_loss"]
  name, options = (c["image_adv_loss"][k] for k in ("loss_type", "loss_kwargs"))
  rec = c["image_rec_loss"]
  config = g.config(
      {**g.loss_fields(rec["loss_type"], rec["loss_kwargs"], c["loss_weights"].get("image_rec_loss", 1)),
       **g.vgg_files(file.parent, tmp_path)},
      {**g.published_model(c), "critic_widths": tuple(c["ddis"]["kwargs"]["inner_dims"])},
      adam=c["adam_kwargs"], steps=c["stab_iter"], batch=size, parity=True, double=True,
      adversarial={"name": g.LOSSES.get(name, name), "n_critic": n_dis, "weight": weight,
                   **g.UNSAID, **{g.OPTIONS.get(k, k): v for k, v in options.items()}})
  method = dpa.Method(config)
  stage, = method_lib.stages_of(method)
  images, orders = g.nhwc(arrays["train_images"]), case["batch_indices"][1:]
  alphas = arrays.get("train_alphas", np.zeros((stage.steps * n_dis, size, 1), np.float32))

  def batch(i):
    """The n_dis + 1 batches of iteration i, interleaved as _critics.sub_batches wants."""
    rows = np.stack(orders[i * (n_dis + 1):(i + 1) * (n_dis + 1)], 1).reshape(-1)
    mix = np.concatenate([alphas[i * n_dis:(i + 1) * n_dis], np.zeros((1, size, 1), np.float32)])
    return double({"image": images[rows], "index": np.arange(len(rows), dtype=np.int32),
                   "mix": np.stack(list(mix), 1).reshape(-1, 1)})
  assert stage.data["batch_size"] == size * (n_dis + 1)
  state = g.put(method_lib.fresh_state(method, jax.random.key(0), batch(0)),
               *g.params(arrays, "init/", kind, ("enc", "dec", "critic")))
  step = g.step(method, stage)
  critic, main = g.rows(case, "ddis"), g.rows(case, "enc_dec")
  for i in range(stage.steps):
    state, metrics = step(state, batch(i))
    last = critic[(i + 1) * n_dis - 1][1]  # metrics keep the last critic step of an iteration
    for name, value in last.items():
      np.testing.assert_allclose(metrics[f"critic_{name}"], value, **g.OUT)
    np.testing.assert_allclose(metrics["rec_loss"], main[i][1]["image_rec_loss"], **g.OUT)
    # The reference logs both terms already multiplied by their weights.
    np.testing.assert_allclose(weight * metrics["adv_loss"], main[i][1]["image_adv_loss"], **g.OUT)
  wanted, _ = g.params(arrays, "end/", kind, ("enc", "dec", "critic"))
  g.close_params(state.params, wanted, close=5e-6, far=lr, what="end")
  g.check_validation(method, state, double(g.nhwc(arrays["val_images"])), g.rows(case, "val"), size)


@pytest.mark.parametrize("file", file_cases("dpa", "roc_auc*.npz"))
def test_roc_auc(file):
  arrays, _ = g.read(file)
  scores = np.concatenate([arrays["normal_scores"], arrays["anomaly_scores"]])
  labels = np.repeat([0, 1], [len(arrays["normal_scores"]), len(arrays["anomaly_scores"])])
  found = detection.auroc(detection.sorted_counts(scores, labels))
  np.testing.assert_allclose(found, arrays["roc_auc"], atol=1e-9)
