"""Meta-learned weights: devices, accumulation, both forms, options, what training tracks.

Devices are emulated by vmap with an axis name, which gives the collectives their meaning without
forcing a device count; tests/contract runs real ones.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import noisy_skin
from data_pipelines import dataset, stream
from medae_jax.core import example, method as method_lib
from medae_jax.methods import _reweighting as reweighting
from medae_jax.models import noisy_unet
from medae_jax.tasks.segmentation import evaluator
from medae_jax.training import feed


def setup(**changes):
  """(method, a batch, fresh state) of the smoke config; one method, so one compilation, for equal changes."""
  method, batch, state = _setup(tuple(sorted(changes.items())))
  return method, dict(batch), state


@functools.cache
def _setup(changes):
  changes = dict(changes)
  c = noisy_skin.get_config(changes.pop("arg", "smoke")).copy_and_resolve_references()
  with c.unlocked():
    c.train.batch_size = c.data.batch_sizes.clean = 8
    c.data.clean = 5
    for name, value in changes.items():
      group, field = name.split("__")
      c[group][field] = value
  method = method_lib.load(c)
  batch = next(stream.train_stream(dataset.open_dataset(c.data, 0), c.data, batch_size=8,
                                   first_step=0, seed=0))
  return method, batch, method.init(jax.random.key(0), batch)


@pytest.fixture(scope="module", autouse=True)
def forget_methods():
  """The compiled programs hang on them. One pooling, not four: all of this is about weights."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(noisy_unet, "POOLS", 1)
    yield
  for kept in (_setup, _step, weights):
    kept.cache_clear()


@pytest.mark.parametrize("noisy, rows", [(None, 6), (4, 4)])
def test_batch_size_is_that_of_the_noisy_stream(noisy, rows):
  """Where the config of an older run names the stream's own size, that one holds."""
  c = noisy_skin.get_config("smoke").copy_and_resolve_references()
  with c.unlocked():
    c.train.batch_size, c.data.batch_sizes.clean = 6, 3
    if noisy:
      c.data.batch_sizes.noisy = noisy
  method = method_lib.load(c)
  stage, = method_lib.stages_of(method)
  for batch in (next(feed.batches_of(dataset.open_dataset(c.data, 0), c, stage, 0, 0)),
                example.example_batch(method, c, 6, stage)):
    assert {name: len(part["image"]) for name, part in batch.items()} == {"noisy": rows, "clean": 3}


def step(method, state, batch, stage=None):
  return _step(method, (stage or method_lib.stages_of(method)[0]).name)(state, batch)


@functools.cache
def _step(method, name):
  stage, = (s for s in method_lib.stages_of(method) if s.name == name)
  return jax.jit(lambda s, b: method.train_step(s, b, jax.random.key(0), stage=stage, axis_name=None))


@functools.cache
def weights(method):
  """(params, batch) -> (relative weight, u) of every pixel, compiled."""
  return jax.jit(lambda params, batch: method._reweighted(params, batch, 1, None)[2])


def assert_close(a, b, rtol=2e-5):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    scale = max(float(np.max(np.abs(y))), 1e-12)
    np.testing.assert_allclose(x, y, rtol=0, atol=rtol * scale)


@pytest.mark.parametrize("changes", [
    {}, {"train__accum": 2}, {"method__meta": "double_backward"},
    {"arg": "smoke,baseline=image_reweight", "method__normalise": "image"},
    {"method__clip": 2.0, "method__uniform_mix": 0.3, "method__clean_weight": 0.5}])
def test_devices_share_one_normalisation(changes):
  """4 devices with 2+2 images each: parameters and tracked weights of one device with 8+8."""
  method, batch, state = setup(**changes)
  stage, = method_lib.stages_of(method)
  one, metrics = step(method, state, batch)
  split = jax.tree.map(lambda x: x.reshape(4 // (2 if "train__accum" in changes else 1), -1,
                                           *x.shape[1:]), batch)
  many, metrics_n = jax.jit(jax.vmap(
      lambda b: method.train_step(state, b, jax.random.key(0), stage=stage, axis_name="data"),
      axis_name="data"))(split)
  for i in (0, -1):
    assert_close(jax.tree.map(lambda x, i=i: x[i], many), one)
    assert_close(jax.tree.map(lambda x, i=i: x[i], metrics_n), metrics)


@pytest.mark.parametrize("baseline, accum", [("pixel_reweight", 4), ("image_reweight", 2)])
def test_accumulation_keeps_the_weights(baseline, accum):
  """Slices give parameters, weights and metrics of the whole batch."""
  arg = f"smoke,baseline={baseline}"
  method, batch, state = setup(arg=arg)
  whole = step(method, state, batch)
  assert_close(step(setup(arg=arg, train__accum=accum)[0], state, batch), whole)


def test_slices_must_divide_the_batches():
  with pytest.raises(ValueError, match="noisy images is not divisible by config.train.accum=3"):
    step(*[setup(train__accum=3)[i] for i in (0, 2, 1)])


def test_forms_agree_in_float32():
  """One JVP against reverse over reverse: 5e-7 of the largest (the reference's own noise)."""
  method, batch, state = setup()
  slow = setup(method__meta="double_backward")[0]
  a, b = (weights(m)(state.params["net"], batch)[1] for m in (method, slow))
  assert np.max(np.abs(a - b)) / np.max(np.abs(b)) < 2e-6
  assert np.mean((a > 0) != (b > 0)) < 1e-3


def test_u_predicts_the_change_of_the_clean_loss():
  """Lowering one pixel's loss a little changes the clean loss by -lr u: finite differences."""
  method, batch, state = setup()
  params, noisy = state.params["net"], batch["noisy"]
  _, u = weights(method)(params, batch)
  clean = jax.jit(lambda p: method._mean_loss(p, batch["clean"], None)[0])
  gradient = jax.jit(jax.grad(lambda p, place: reweighting.pixel_bce(
      method._apply(p, noisy["image"]), noisy["mask"])[place]))
  largest = np.unravel_index(np.argsort(-np.abs(np.asarray(u)), None)[:3], u.shape)
  for place in zip(*largest):
    g = gradient(params, place)
    lr = 1e-2 / float(sum(jnp.sum(x**2) for x in jax.tree.leaves(g))) ** 0.5
    moved = lambda s: jax.tree.map(lambda p, d: p - s * lr * d, params, g)
    slope = (float(clean(moved(-1))) - float(clean(moved(1)))) / (2 * lr)
    assert abs(slope / float(u[place]) - 1) < 0.05


def test_weights_by_hand():
  u = jnp.array([[1.0, -2.0], [3.0, 0.0]]).reshape(2, 2, 1, 1)  # two images of two pixels
  raw = reweighting.rectify(u, "pixel", "batch")
  np.testing.assert_allclose(reweighting.normalised(raw, None).ravel(), [0.25, 0, 0.75, 0])
  per_image = reweighting.normalised(reweighting.rectify(u, "image", "batch"), None)
  np.testing.assert_allclose(per_image.ravel(), [0, 0, 0.5, 0.5])  # mean u: -0.5 and 1.5
  same = reweighting.normalised(reweighting.rectify(u, "pixel", "image"), None)
  np.testing.assert_allclose(same.ravel(), [0.5, 0, 0.5, 0])
  clipped = reweighting.normalised(raw, None, clip=2.0, uniform_mix=0.5)
  np.testing.assert_allclose(clipped.ravel(), [0.25, 0.125, 0.375, 0.125])


@pytest.mark.parametrize("mask", [0.0, 1.0])
def test_the_slope_is_the_derivative_at_exactly_zero(mask):
  """Logits of a black border are 0 while all biases are: PyTorch's derivative there is 0.5 - mask."""
  for z in (-3.0, 0.0, 1.0):
    found = jax.grad(reweighting.pixel_bce)(z, mask)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-z)) - mask, rtol=1e-6)
    np.testing.assert_allclose(found, reweighting.slope(z, mask), rtol=1e-6)


def test_nothing_agrees_means_no_weight_and_no_nan():
  raw = reweighting.rectify(-jnp.ones((2, 2, 2, 1)), "pixel", "image")
  assert float(jnp.sum(reweighting.normalised(raw, None))) == 0
  method, batch, state = setup(optim__weight_decay=0.0)
  batch["clean"] = {**batch["clean"], "image": batch["noisy"]["image"],
                    "mask": 1 - batch["noisy"]["mask"]}
  flat = jax.tree.map(jnp.zeros_like, state.params)  # dead: only the last bias learns
  new, metrics = step(method, state.replace(params=flat), batch)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(new))
  assert np.isfinite(float(metrics["loss"]))


def test_wrong_pixels_get_less_weight():
  """Labels turned over in one half of true masks: the other half gets the weight."""
  method, batch, state = setup(data__noise="none", optim__lr=0.05)
  for _ in range(25):
    state, _ = step(method, state, batch)
  turned = dict(batch["noisy"])
  wrong = np.zeros(turned["mask"].shape, bool)
  wrong[:, :, 8:] = True
  turned["mask"] = np.where(wrong, 1 - turned["mask"], turned["mask"])
  relative, u = weights(method)(state.params["net"], {**batch, "noisy": turned})
  relative, agrees = np.asarray(relative), np.asarray(u) > 0
  assert agrees[~wrong].mean() > 0.5 > agrees[wrong].mean()
  assert relative[~wrong].mean() > 2 * relative[wrong].mean()


def test_bfloat16_update_with_float32_meta_gradient():
  """z and the update in bfloat16; u stays float32: its signs are those of the float32 method."""
  method, batch, state = setup()
  half = setup(model__dtype="bfloat16")[0]
  exact, mixed = (weights(m)(state.params["net"], batch)[1] for m in (method, half))
  assert np.mean((exact > 0) != (mixed > 0)) < 1e-3
  new, _ = step(half, state, batch)
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(new.params))


@pytest.mark.parametrize("baseline, stream_used", [("plain", "noisy"), ("supervised", "clean")])
def test_baselines_use_their_stream_only(baseline, stream_used):
  method, batch, state = setup(arg=f"smoke,baseline={baseline}")
  new, metrics = step(method, state, batch)
  other = "clean" if stream_used == "noisy" else "noisy"
  changed = {**batch, other: {**batch[other], "mask": 1 - batch[other]["mask"]}}
  assert_close(step(method, state, changed)[0], new, 0)
  logits = method._apply(state.params["net"], batch[stream_used]["image"])
  expected = np.mean(reweighting.pixel_bce(logits, batch[stream_used]["mask"]))
  np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)


def test_fine_tuning_starts_afresh_on_the_clean_stream():
  method, batch, state = setup(arg="smoke,baseline=finetune", method__finetune_share=0.5)
  first, second = method_lib.stages_of(method)
  assert (first.name, first.steps, second.name, second.steps, second.begin) == (
      "noisy", 2, "clean", 2, 2)
  state, _ = step(method, state, batch, first)
  velocity = lambda s: max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(s.opt)
                           if x.dtype == jnp.float32)
  assert velocity(state) > 0
  grown = method.grow(state, second, None, batch)
  assert velocity(grown) == 0
  assert_close(grown.params, state.params, 0)
  _, metrics = step(method, grown.replace(step=jnp.int32(2)), batch, second)
  np.testing.assert_allclose(metrics["lr"], 0.1 * method.config.optim.lr, rtol=1e-6)


def test_tracking_puts_weights_back_where_they_came_from():
  """Flipped and cropped maps come back in the image's own frame; means run over the visits."""
  weight = np.zeros((2, 8, 8, 1), np.float32)
  weight[0, :, :4] = 2.0   # left half
  weight[1, :4] = 2.0      # upper half
  noisy = {"sample": jnp.array([1, 2]), "flip": jnp.array([[0, 1], [0, 0]]),
           "crop": jnp.zeros((2, 3), jnp.int32)}
  track = reweighting.empty_track(3, 8)
  track = reweighting.update_track(track, noisy, jnp.asarray(weight), jnp.asarray(weight), 10, None)
  np.testing.assert_allclose(track["weight"][1], np.tile(np.repeat([0, 2], 4), (8, 1)), atol=1e-6)
  np.testing.assert_allclose(track["weight"][2], np.repeat([2, 0], 4)[:, None] * np.ones(8),
                             atol=1e-6)
  np.testing.assert_allclose(track["agree"], [0, 0.5, 0.5])
  np.testing.assert_array_equal(track["seen"], [0, 1, 1])
  track = reweighting.update_track(track, noisy, jnp.zeros_like(weight), jnp.zeros_like(weight), 10,
                                   None)
  np.testing.assert_allclose(track["weight"][1], np.tile(np.repeat([0, 1], 4), (8, 1)), atol=1e-6)
  latest = reweighting.update_track(track, noisy, jnp.asarray(weight), jnp.asarray(weight), 1, None)
  np.testing.assert_allclose(latest["weight"][1], np.tile(np.repeat([0, 2], 4), (8, 1)), atol=1e-6)
  beyond = {**noisy, "sample": jnp.array([3, -1])}  # beyond the capacity, and a clean image
  same = reweighting.update_track(track, beyond, jnp.asarray(weight), jnp.asarray(weight), 10, None)
  assert_close(same, track, 0)


def test_crops_are_placed_in_the_whole_image():
  weight = np.ones((1, 8, 8, 1), np.float32)
  weight[0, :4] = 3.0
  noisy = {"sample": jnp.array([0]), "flip": jnp.array([[1, 0]]), "crop": jnp.array([[4, 0, 4]])}
  track = reweighting.update_track(reweighting.empty_track(1, 12), noisy, jnp.asarray(weight),
                                   jnp.asarray(weight), 10, None)
  found = np.asarray(track["weight"][0])
  np.testing.assert_allclose(found[4:8, :8], 1, atol=1e-5)   # flipped: the 3s are below
  np.testing.assert_allclose(found[8:12, :8], 3, atol=1e-5)
  np.testing.assert_allclose(found[:4], 2, atol=1e-5)        # outside the crop: the mean


def test_eval_step_and_evaluator_define_dice_alike():
  method, batch, state = setup()
  mask = np.array(batch["noisy"]["mask"])
  mask[0] = 0
  out = method.eval_step(state, {"image": batch["noisy"]["image"], "mask": mask}, None)
  found = np.asarray(method._apply(state.params["net"], batch["noisy"]["image"])) > 0
  sums = [x.sum((1, 2, 3)) for x in (found, found & (mask > 0.5), mask > 0.5)]
  np.testing.assert_allclose(out["dice"], evaluator.dice_of(*sums), rtol=1e-6)


@pytest.mark.parametrize("changes, match", [
    ({"method__baseline": "best"}, "config.method.baseline='best': use pixel_reweight"),
    ({"method__meta": "exact"}, "config.method.meta"),
    ({"method__normalise": "pixel"}, "config.method.normalise"),
    ({"train__accum": 2, "method__clip": 2.0}, "config.train.accum > 1"),
    ({"model__init": "gauss"}, "config.model.init='gauss': use torch"),
    ({"model__sides": "crop"}, "config.model.sides='crop': use pad or ceil"),
    ({"model__mean": (0.5, 0.5)}, "config.model.mean and std have 2 and 3 values")])
def test_bad_options_are_named(changes, match):
  with pytest.raises(ValueError, match=match):
    step(*[setup(**changes)[i] for i in (0, 2, 1)])
