"""The method: its loss, accumulation, parity switch, score, and that every field acts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.core import method as method_lib
from medae_jax.methods import annotation_removal
from medae_jax.models import annotation_nets as nets
from medae_jax.weights import annotation
from tests.contract import cases

RNG = np.random.default_rng(0)


def config(**changes):
  """The :smoke config with {"group.field": value} changed; autoencoder_skip (no BatchNorm)."""
  c = cases.load_config(cases.ROOT / "configs" / "annotation_removal.py", "smoke")
  with c.unlocked():
    c.model.update(network="autoencoder_skip", head="residual")
    c.method.score.threshold = 0.06
    for name, value in changes.items():
      node = c
      *groups, field = name.split(".")
      for group in groups:
        node = node[group]
      assert field in node, name
      node[field] = value
  return c.lock()


def batch(n=4, size=(16, 24), channels=3):
  clean = RNG.uniform(0.1, 0.6, (n, *size, channels)).astype(np.float32)
  image, mask = clean.copy(), np.zeros((n, *size, 1), np.float32)
  for i in range(n):
    image[i, 2 + i:5 + i, 3:9, :1 + i % channels] = 1.0
    mask[i, 2 + i:5 + i, 3:9] = 1
  return {"image": image, "clean": clean, "mask": mask, "index": np.arange(n, dtype=np.int32)}


def step(c, data, rng=None):
  rng = jax.random.key(1) if rng is None else rng
  method = method_lib.load(c)
  state = method.init(jax.random.key(0), data)
  stage = method_lib.stages_of(method)[0]
  run = jax.jit(lambda s, b: method.train_step(s, b, rng, stage=stage, axis_name=None))
  return method, state, *run(state, data)


def test_loss_is_the_formula():
  c = config(**{"method.ssim_weight": 0.0, "method.alpha": 40.0, "method.beta": 2.0})
  data = batch()
  method, state, _, metrics = step(c, data)
  recon = method._apply(state.params["net"], state.stats["net"], data["image"], True)[0]["recon"]
  weight = np.broadcast_to(40.0 * data["mask"] + 2.0 * (1 - data["mask"]), recon.shape)
  expected = (weight * (data["clean"] - np.asarray(recon)) ** 2).sum() / weight.sum()
  assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)


def test_accumulation_is_exact():
  data = batch()
  whole = step(config(), data)[2]
  slices = step(config(**{"train.accum": 2}), data)[2]
  for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(slices.params)):
    np.testing.assert_allclose(a, b, atol=2e-6)


def test_parity_takes_the_inequality_and_the_annotated_image():
  data = batch()
  c = config(**{"method.parity": True, "method.ssim_weight": 0.5, "model.head": "published"})
  method, state, _, metrics = step(c, data)
  recon = method._apply(state.params["net"], state.stats["net"], data["image"], True)[0]["recon"]
  mask = (data["image"] != data["clean"]).astype(np.float32)  # per channel
  weight = c.method.alpha * mask + c.method.beta * (1 - mask)
  squared = (weight * (data["clean"] - np.asarray(recon)) ** 2).sum() / weight.sum()
  from medae_jax.losses import ssim
  similar = float(jnp.mean(ssim.ssim_loss(recon, data["image"])))
  assert float(metrics["loss"]) == pytest.approx(squared + 0.5 * similar, rel=1e-5)


def test_parity_feeds_the_unbiased_variance():
  data = batch(1, size=(16, 16))
  change = {"model.network": "basic_unet", "method.ssim_weight": 0.0}
  variance = lambda c: np.asarray(step(c, data)[2].stats["net"]["inc"]["double_conv_1"]["var"]) - 0.9
  biased = variance(config(**change))
  unbiased = variance(config(**change, **{"method.parity": True}))
  n = 16 * 16
  np.testing.assert_allclose(unbiased / biased, n / (n - 1), rtol=5e-4)
  method, state, _, _ = step(config(**change), data)
  variables = {"params": state.params["net"], "batch_stats": state.stats["net"]}
  _, found = method._net(data["image"].shape[-1], True).apply(
      variables, data["image"], capture_intermediates=True, mutable=["batch_stats", "intermediates"])
  normalised = np.asarray(found["intermediates"]["inc"]["double_conv_0"]["__call__"][0], np.float64)
  np.testing.assert_allclose(biased, 0.1 * normalised.var((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("network", sorted(nets.NETWORKS))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shapes_of_every_network_at_odd_sizes(network, dtype):
  """Without compiling: parameters, statistics, gradients and outputs are float32 of the right size."""
  c = config(**{"model.network": network, "model.dtype": dtype,
                "model.width": {"jung_unet": 32}.get(network, 4)})
  data = batch(size=(17, 22))
  method = method_lib.load(c)
  state = jax.eval_shape(method.init, jax.random.key(0), data)
  stage = method_lib.stages_of(method)[0]
  after, metrics = jax.eval_shape(lambda s, b: method.train_step(
      s, b, jax.random.key(1), stage=stage, axis_name=None), state, data)
  shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert shapes(after) == shapes(state) and "grad_norm" in metrics
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves((after.params, after.stats, metrics)))
  out = jax.eval_shape(method.score, state, {"image": data["image"]})
  assert out["recon"].shape == data["image"].shape and out["recon"].dtype == jnp.float32
  assert out["map"].shape == out["marks"].shape == (4, 17, 22, 1) and out["score"].shape == (4,)


def test_bfloat16_is_close_to_float32():
  data = batch(size=(16, 24))
  exact, rough = (float(step(config(**{"model.dtype": t}), data)[3]["loss"])
                  for t in ("float32", "bfloat16"))
  assert exact == pytest.approx(rough, rel=0.03) and exact != rough


def test_restored_is_the_image_wherever_no_mark_is_seen():
  data = batch()
  method = method_lib.load(config())
  state = method.init(jax.random.key(0), data)
  middle = float(jnp.median(method.score(state, {"image": data["image"]})["map"]))
  method = method_lib.load(config(**{"method.score.threshold": middle, "method.score.dilate": 0}))
  out = {k: np.asarray(v) for k, v in method.score(state, {"image": data["image"]}).items()}
  seen = out["marks"][..., 0] > 0
  assert 0.3 < seen.mean() < 0.7
  wider = method_lib.load(config(**{"method.score.threshold": middle, "method.score.dilate": 1}))
  assert wider.score(state, {"image": data["image"]})["marks"].mean() > seen.mean()
  np.testing.assert_array_equal(out["restored"][~seen], data["image"][~seen])
  np.testing.assert_array_equal(out["restored"][seen], out["recon"][seen])
  np.testing.assert_allclose(out["score"], seen.mean((1, 2)), rtol=1e-6)
  np.testing.assert_allclose(
      out["map"][..., 0], np.abs(out["recon"] - data["image"]).max(-1), atol=1e-7)


def test_gate_says_where_marks_are():
  c = config(**{"model.head": "gated", "method.score.threshold": 0.5, "method.score.dilate": 0})
  data = batch()
  method, state, _, metrics = step(c, data)
  assert "loss_mark" in metrics
  out = {k: np.asarray(v) for k, v in method.score(state, {"image": data["image"]}).items()}
  gate = out["map"]
  assert out["recon"].shape[-1] == 3 and 0 <= gate.min() <= gate.max() <= 1
  head = state.params["net"]["decoder_upsample3"]
  shut = {**state.params["net"], "decoder_upsample3": {
      **head, "bias": head["bias"].at[-1].set(-100.0)}}
  closed = method.score(state.replace(params={"net": shut}), {"image": data["image"]})
  np.testing.assert_allclose(closed["recon"], data["image"], atol=1e-6)  # p = g q + (1 - g) a
  seen = gate[..., 0] >= 0.5
  np.testing.assert_array_equal(out["restored"][seen], out["recon"][seen])
  np.testing.assert_array_equal(out["restored"][~seen], data["image"][~seen])
  assert set(method.eval_step(state, data, None)) >= {"loss", "loss_mse", "loss_mark"}


def test_eval_step_is_per_example():
  data = batch()
  method, state, *_ = step(config(), data)
  together = method.eval_step(state, data, None)["loss"]
  alone = [method.eval_step(state, {k: v[i:i + 1] for k, v in data.items()}, None)["loss"][0]
           for i in range(4)]
  np.testing.assert_allclose(together, alone, rtol=1e-5)


class Scale(annotation_removal.Method):
  """The method with a network of two numbers a channel, for fields that are not the network's."""

  def init(self, rng, batch):
    params = {"w": jnp.full(3, 0.7), "b": jnp.full(3, 0.01)}
    return method_lib.State.create({"net": params}, {"net": {}}, {"net": self._tx.init(params)})

  def _apply(self, params, stats, image, train, axis_name=None):
    return {"recon": params["w"] * image + params["b"]}, stats


def two_steps(load, c):
  """Parameters, loss and marks after two steps: what a field may act on."""
  data = batch_of_two()
  method = load(c)
  state = method.init(jax.random.key(0), data)
  stage = method_lib.stages_of(method)[0]
  run = jax.jit(lambda s, b: method.train_step(s, b, jax.random.key(2), stage=stage, axis_name=None))
  for _ in range(2):
    state, metrics = run(state, data)
  out = method.score(state, {"image": data["image"]})
  return [np.asarray(x) for x in (*jax.tree.leaves(state.params), metrics["loss"], out["marks"])]


@functools.lru_cache(maxsize=1)
def batch_of_two():
  return batch(2, (8, 16))


@functools.cache
def default_steps(load):
  return two_steps(load, config())


@pytest.mark.parametrize("field, value", [
    ("method.alpha", 5.0), ("method.beta", 0.5), ("method.mse_weight", 3.0),
    ("method.ssim_weight", 0.7), ("method.ssim_window", 5), ("method.parity", True),
    ("model.width", 8), ("model.head", "linear"), ("model.head", "gated"), ("model.full_skip", True),
    ("model.dtype", "bfloat16"), ("optim.lr", 0.5), ("optim.b1", 0.5), ("optim.b2", 0.5),
    ("optim.eps", 1.0), ("optim.weight_decay", 0.1), ("optim.clip", 1e-3),
    ("optim.schedule", "constant"), ("method.score.threshold", 0.9)])
def test_every_field_acts(field, value):
  """Two steps and a score: something must differ from the default config's."""
  load = method_lib.load if field.startswith("model.") else Scale
  base, changed = default_steps(load), two_steps(load, config(**{field: value}))
  same = [a.shape == b.shape and np.array_equal(a, b) for a, b in zip(base, changed)]
  assert len(base) != len(changed) or not all(same)


@pytest.mark.parametrize("change, message", [
    ({"model.network": "unet"}, "network='unet'"), ({"model.head": "tanh"}, "head='tanh'"),
    ({"method.score.fill": "telea"}, "score.fill='telea'"),
    ({"model.bilinear": True}, "bilinear=True works with network=basic_unet"),
    ({"model.head": "gated", "method.parity": True}, "head=gated is no form of the reference"),
    ({"model.network": "basic_unet", "model.full_skip": True}, "full_skip=True works with"),
    ({"optim.schedule": "linear"}, "schedule='linear'")])
def test_wrong_fields_are_named(change, message):
  with pytest.raises(ValueError, match=message) as caught:
    method_lib.load(config(**change))
  assert "\n" not in str(caught.value)


def test_published_channels_must_fit_the_data():
  c = config(**{"method.parity": True, "model.network": "jung_unet", "model.width": 32,
                "model.head": "published"})
  with pytest.raises(ValueError, match="1 output channels.*data have.*3"):
    method_lib.load(c).init(jax.random.key(0), batch())


def test_narrow_squeeze_excitation_is_refused():
  c = config(**{"model.network": "jung_unet", "model.width": 16})
  with pytest.raises(ValueError, match="config.model.width is too small"):
    method_lib.load(c).init(jax.random.key(0), batch())


# ----------------------------------------------------------------------------------- conversion
@pytest.mark.parametrize("network, extra", [
    ("autoencoder", {}), ("autoencoder_skip", {}), ("basic_unet", {"model.bilinear": True}),
    ("basic_unet", {}), ("jung_unet", {})])
def test_reference_checkpoints_round_trip(network, extra):
  import flax.traverse_util
  channels = {"jung_unet": 1, "basic_unet": 1}.get(network, 3)
  c = config(**{"model.network": network, "model.width": 32, "method.parity": True,
                "model.head": "published", "data.channels": channels, **extra})
  method = method_lib.load(c)
  state = method.init(jax.random.key(3), {"image": np.zeros((1, 32, 32, channels), np.float32)})
  tensors = {annotation.reference_name(network, path): annotation.to_reference(leaf)
             for tree in (state.params["net"], state.stats["net"])
             for path, leaf in flax.traverse_util.flatten_dict(tree).items()}
  fields = method.torch_fields(tensors)
  assert fields["model.network"] == network and fields["model.width"] == 32
  assert fields["data.channels"] == channels
  assert fields["model.bilinear"] == extra.get("model.bilinear", False)
  tensors["inc.double_conv.1.num_batches_tracked"] = np.zeros(())
  params, stats = method.from_torch(tensors)
  for a, b in zip(jax.tree.leaves((params, stats)), jax.tree.leaves((state.params, state.stats))):
    np.testing.assert_array_equal(a, b)
  tensors["extra.weight"] = np.zeros(3)
  with pytest.raises(ValueError, match="extra.weight"):
    method.from_torch(tensors)
