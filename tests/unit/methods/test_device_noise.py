"""Coarse noise drawn on the device: grid, sigma, rolls, per-example draws; and what the DAE makes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.interpolate

from medae_jax.core.errors import UserError
from medae_jax.methods import _coarse_noise as noise, dae
from tests.unit import tiny_dae

SHAPE = (12, 20, 2)


def draw(n=400, key=0, std=0.3, roll="example", resolution=5, shape=SHAPE):
  index = jnp.arange(n, dtype=jnp.int32)
  found = noise.draw(jax.random.key(key), index, shape, resolution, std, roll)
  return [np.asarray(x) for x in found]


def test_fields_have_the_stated_grid_and_sigma():
  coarse, roll = draw()
  assert coarse.shape == (400, 5, 5, 2) and coarse.dtype == np.float32
  assert roll.shape == (400, 2) and roll.dtype == np.int32
  assert abs(coarse.std() - 0.3) < 0.006 and abs(coarse.mean()) < 0.012      # 20000 draws: 4 sigma
  np.testing.assert_allclose(draw(std=0.6)[0], 2 * coarse, rtol=1e-5)
  flat = coarse[:50].reshape(50, -1)
  assert np.abs(np.corrcoef(flat) - np.eye(50)).max() < 0.6                  # no image repeats another
  nodes = coarse.reshape(400, -1)
  assert np.abs(np.corrcoef(nodes.T) - np.eye(50)).max() < 0.25              # nor a node another


def test_fixed_fields_are_kept_apart_by_the_width_of_numbers():
  """Whoever asked first decided what a program in float64 was given."""
  of = lambda: noise.fixed(2, SHAPE, 5, 0.2)[0].dtype
  with jax.enable_x64(True):
    wide = of()
  assert (of(), wide) == (np.float32, np.float64)


def test_rolls_cover_each_axis_and_are_drawn_one_an_axis_and_example():
  _, roll = draw(1500)
  assert set(roll[:, 0]) == set(range(12)) and set(roll[:, 1]) == set(range(20))
  # uniform: 125 and 75 of each, standard deviations 10.7 and 8.4
  assert np.abs(np.bincount(roll[:, 0]) - 125).max() < 45
  assert np.abs(np.bincount(roll[:, 1]) - 75).max() < 36
  assert abs(np.corrcoef(roll.T)[0, 1]) < 0.12                               # axes apart
  assert abs(np.corrcoef(roll[:-1, 0], roll[1:, 0])[0, 1]) < 0.12            # examples apart


def test_one_roll_a_batch_and_one_field_an_example():
  coarse, roll = draw(50, roll="batch")
  assert (roll == roll[0]).all()
  assert len({c.tobytes() for c in coarse}) == 50
  keys = jax.vmap(jax.random.key)(np.arange(60))
  rolls = np.asarray(jax.vmap(lambda k: noise.draw(k, jnp.arange(2), SHAPE, 5, 0.3, "batch")[1][0])(keys))
  assert len(np.unique(rolls[:, 0])) > 8 and len(np.unique(rolls[:, 1])) > 12
  assert np.ptp(rolls[:, 0]) < 12 and rolls[:, 0].max() >= 10 and rolls[:, 1].max() >= 17
  assert abs(np.corrcoef(rolls.T)[0, 1]) < 0.45


def test_draws_belong_to_the_example_and_the_step():
  whole, roll = draw(8)
  index = jnp.asarray([5, 2], jnp.int32)
  part, part_roll = noise.draw(jax.random.key(0), index, SHAPE, 5, 0.3, "example")
  np.testing.assert_array_equal(part, whole[[5, 2]])
  np.testing.assert_array_equal(part_roll, roll[[5, 2]])
  assert not np.array_equal(draw(8, key=1)[0], whole) and not np.array_equal(draw(8, key=1)[1], roll)
  shared = noise.draw(jax.random.key(0), index, SHAPE, 5, 0.3, "batch")[1]
  np.testing.assert_array_equal(shared[0], draw(8, roll="batch")[1][0])      # on every device the same


@pytest.mark.parametrize("resolution", [2, 3, 5, 7])
def test_upsampling_aligns_corners_and_then_rolls(resolution):
  rng = np.random.default_rng(resolution)
  coarse = rng.normal(size=(2, resolution, resolution, 2)).astype(np.float32)
  roll = np.array([[3, 17], [0, 5]], np.int32)
  found = np.asarray(noise.upsample_and_roll(jnp.asarray(coarse), jnp.asarray(roll), 12, 20))
  nodes = np.linspace(0, 1, resolution)
  grid = np.stack(np.meshgrid(np.linspace(0, 1, 12), np.linspace(0, 1, 20), indexing="ij"), -1)
  for b in range(2):
    for c in range(2):
      smooth = scipy.interpolate.RegularGridInterpolator((nodes, nodes), coarse[b, ..., c])(grid)
      np.testing.assert_allclose(found[b, ..., c], np.roll(smooth, roll[b], (0, 1)), atol=2e-6)
  corners = np.roll(found[0], -roll[0], (0, 1))
  np.testing.assert_allclose(corners[0, 0], coarse[0, 0, 0], atol=1e-6)
  np.testing.assert_allclose(corners[-1, -1], coarse[0, -1, -1], atol=1e-6)


# ----------------------------------------------------------------------------- the DAE's corruption
def dae_method(**data):
  config = tiny_dae.config()
  with config.unlocked():
    config.data.update(data)
  return dae.Method(config.lock())


def body(n=4):
  """Images [n,12,20,2] of 0.5 with a background of 0 and a margin below the foreground's 0.01."""
  image = np.zeros((n, *SHAPE), np.float32)
  image[:, 2:10, 3:18] = 0.5
  image[:, 2:10, 2] = 0.004        # 0.008 over the two channels: not foreground
  return image


@pytest.mark.parametrize("options", [
    dict(noise_res=3, noise_std=0.7, noise_roll="example"),
    dict(noise_res=6, noise_std=0.1, noise_roll="batch")])
def test_corruption_uses_the_fields_of_the_config(options):
  batch = {"image": body(), "index": np.arange(4, dtype=np.int32)}
  noised, mask = dae_method(**options).corrupt(batch, jax.random.key(3))
  coarse, roll = noise.draw(jax.random.key(3), batch["index"], SHAPE, options["noise_res"],
                            options["noise_std"], options["noise_roll"])
  inside = batch["image"].sum(-1, keepdims=True) > 0.01
  np.testing.assert_array_equal(np.asarray(mask) > 0, inside)
  field = np.asarray(noise.upsample_and_roll(coarse, roll, *SHAPE[:2]))
  np.testing.assert_allclose(noised, batch["image"] + inside * field, atol=1e-6)
  np.testing.assert_array_equal(np.asarray(noised)[~inside[..., 0]], batch["image"][~inside[..., 0]])


def test_corruption_takes_the_noise_of_the_pipeline_where_there_is_one():
  coarse = np.ones((4, 3, 3, 2), np.float32) * np.array([0.25, -0.5], np.float32)
  batch = {"image": body(), "index": np.arange(4, dtype=np.int32), "noise": coarse,
           "roll": np.zeros((4, 2), np.int32)}
  noised, _ = dae_method().corrupt(batch, jax.random.key(0))
  np.testing.assert_allclose(np.asarray(noised)[:, 5, 5], np.tile([0.75, 0.0], (4, 1)), atol=1e-6)


def test_another_key_is_another_noise():
  """The loop folds the step into the key: steps must not share their noise."""
  batch = {"image": body(), "index": np.arange(4, dtype=np.int32)}
  a, b = (np.asarray(dae_method().corrupt(batch, jax.random.key(k))[0]) for k in (0, 1))
  assert np.abs(a - b).max() > 0.05
  assert np.abs(a[0] - a[1]).max() > 0.05


# --------------------------------------------------------------------------------------- the loss
@pytest.mark.parametrize("over", ["all", "foreground"])
def test_loss_is_of_the_foreground_against_the_clean_image(over):
  """The network returns its input: the loss is the mean square of the noise inside the body."""
  class Echo(dae.Method):
    def _apply(self, params, image):
      return image
  config = tiny_dae.config()
  with config.unlocked():
    config.method.loss_over = over
  method = Echo(config.lock())
  batch = {"image": body(), "index": np.arange(4, dtype=np.int32)}
  noised, _ = method.corrupt(batch, jax.random.key(5))
  square = (np.asarray(noised, np.float64) - batch["image"]) ** 2
  inside = int((batch["image"].sum(-1) > 0.01)[0].sum())
  assert inside == 8 * 15
  want = square.sum((1, 2, 3)) / (2 * (inside if over == "foreground" else 12 * 20))
  found = method.eval_step(dae.State.create({"net": {}}), batch, jax.random.key(5))["loss"]
  np.testing.assert_allclose(found, want, rtol=1e-5)


def test_loss_ignores_what_the_network_says_of_the_background():
  class Loud(dae.Method):
    def _apply(self, params, image):
      return jnp.where(image.sum(-1, keepdims=True) > 0.01, 0.5, 100.0) * jnp.ones_like(image)
  batch = {"image": body(), "index": np.arange(4, dtype=np.int32),
           "noise": np.zeros((4, 3, 3, 2), np.float32), "roll": np.zeros((4, 2), np.int32)}
  method = Loud(tiny_dae.config())
  found = method.eval_step(dae.State.create({"net": {}}), batch, jax.random.key(0))["loss"]
  np.testing.assert_allclose(found, 0.0, atol=1e-9)


def test_noise_of_training_and_validation_is_that_of_the_key_it_is_given():
  class Scale(dae.Method):
    def _apply(self, params, image):
      return params["w"] * image
  method = Scale(tiny_dae.config())
  params = {"w": jnp.float32(0.9)}
  state = dae.State.create({"net": params}, opt={"net": method._tx.init(params)})
  batch = {"image": body(), "index": np.arange(4, dtype=np.int32)}
  loss = lambda key: float(jnp.mean(method.eval_step(state, batch, jax.random.key(key))["loss"]))
  step = jax.jit(lambda s, b, r: method.train_step(s, b, r, stage=method.stages()[0], axis_name=None))
  after, metrics = step(state, batch, jax.random.key(7))
  assert float(metrics["loss"]) == pytest.approx(loss(7), rel=1e-4)
  assert float(metrics["loss"]) != pytest.approx(loss(8), rel=1e-4)
  assert int(after.step) == 1 and float(after.params["net"]["w"]) != pytest.approx(0.9)


def test_a_misspelt_roll_is_refused_and_is_not_one_for_all():
  with pytest.raises(UserError, match="noise_roll='image' is neither"):
    draw(2, roll="image")
