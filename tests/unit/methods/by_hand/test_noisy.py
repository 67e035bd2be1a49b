"""Noisy annotations with a network of one number, whose gradients a test computes itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import noisy_skin
from medae_jax.core import method as method_lib
from medae_jax.core.errors import UserError
from medae_jax.core.method import Stage, State
from medae_jax.methods import _reweighting as reweighting, noisy_annotation
from medae_jax.models import noisy_unet
from medae_jax.optim import adam

RNG = np.random.default_rng(0)
BATCH = {name: {"image": RNG.normal(size=(2, 2, 2, 1)).astype(np.float32),
                "mask": RNG.integers(0, 2, (2, 2, 2, 1)).astype(np.float32)} for name in ("noisy", "clean")}


class Linear(noisy_annotation.Method):
  """Logits w x."""

  def _apply(self, params, image, dtype=None):
    return params * image


def method_of(cls=Linear, **fields):
  c = noisy_skin.get_config("smoke").copy_and_resolve_references()
  with c.unlocked():
    for name, value in fields.items():
      group, field = name.split("__")
      c[group][field] = value
  return cls(c.lock())


def slopes(name, w=0.3):
  """(d loss / d logit, d logit / d w) of every pixel."""
  x, mask = BATCH[name]["image"], BATCH[name]["mask"]
  return 1 / (1 + np.exp(-w * x)) - mask, x


def test_weights_metrics_and_the_share_of_the_clean_gradient():
  """w_i = max(u_i, 0) / sum, u_i = g l_i', plus clean_weight times g."""
  slope, x = slopes("noisy")
  g = np.mean(np.multiply(*slopes("clean")))
  u = g * slope * x
  weight = np.maximum(u, 0) / np.maximum(u, 0).sum()
  method = method_of(method__clean_weight=0.5)
  grads, metrics, _ = method._reweighted(jnp.float32(0.3), BATCH, 1, None)
  np.testing.assert_allclose(grads, (weight * slope * x).sum() + 0.5 * g, rtol=1e-4)
  np.testing.assert_allclose(metrics["zero_weights"], np.mean(u <= 0))
  np.testing.assert_allclose(metrics["agreement"], np.mean(u > 0))
  assert 0 < np.mean(u > 0) < 1


def test_both_streams_are_asked_for_alike_and_in_their_ranges():
  told = {name: (need.dims, need.low, need.high) for name, need in Linear.needs.items()}
  assert told == {f"{stream}/{name}": value for stream in ("noisy", "clean")
                  for name, value in (("image", ("BHWC", -1, 1)), ("mask", ("BHW1", 0, 1)))}


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_plain_loss_takes_its_share_of_the_clean_gradient(share):
  method = method_of(method__baseline="plain", method__clean_weight=share, optim__momentum=0.0,
                     optim__weight_decay=0.0, optim__lr=0.1, optim__schedule="constant")
  stage, w = Stage("noisy", 4), jnp.float32(0.3)
  state = State.create({"net": w}, opt={"net": method._optimizer(stage)[0].init(w)})
  new, metrics = method.train_step(state, BATCH, jax.random.key(0), stage=stage, axis_name=None)
  assert ("clean_loss" in metrics) == (share > 0)  # nothing is computed for a share of 0
  noisy, clean = (np.mean(np.multiply(*slopes(name))) for name in ("noisy", "clean"))
  np.testing.assert_allclose(new.params["net"], 0.3 - 0.1 * (noisy + share * clean), rtol=1e-5)
  assert jax.tree.structure(new) == jax.tree.structure(state)  # what the next step takes


@pytest.mark.parametrize("field, known", [
    ("method__baseline", "pixel_reweight, image_reweight"), ("method__meta", "jvp, double_backward"),
    ("method__normalise", "batch, image"), ("optim__name", "sgd, adam")])
def test_words_that_are_none_are_refused_before_the_network_is_made(field, known):
  with pytest.raises(UserError, match=f"config.{field.replace('__', '.')}='x': use .*{known}"):
    method_of(**{field: "x"})


def test_what_was_learnt_of_an_example_is_found_by_its_number():
  """0 visits for those beyond the capacity and those of no number."""
  track = {"weight": jnp.ones((2, 4, 4)), "agree": jnp.asarray([0.2, 0.7]), "seen": jnp.asarray([3.0, 5.0])}
  batch = {"image": jnp.zeros((4, 2, 2, 1)), "sample": jnp.asarray([1, 0, 2, -1])}
  found = method_of().score(State.create({"net": 0.0}, {"track": track}), batch)
  np.testing.assert_array_equal(found["seen"], [5, 3, 0, 0])
  np.testing.assert_allclose(found["agree"][:2], [0.7, 0.2])


def test_images_are_standardised_before_the_network(monkeypatch):
  class Network:
    def __init__(self, *args):
      pass

    def apply(self, variables, image):
      return image
  monkeypatch.setattr(noisy_unet, "NoisyUNet", Network)
  method = method_of(noisy_annotation.Method, model__mean=(0.5, 0.25), model__std=(0.5, 2.0))
  found = method._apply(jnp.zeros(1), jnp.ones((1, 1, 1, 2)))
  np.testing.assert_allclose(np.ravel(found), [1, 0.375])


def test_adam_has_the_momentum_of_the_config(monkeypatch):
  seen = {}
  monkeypatch.setattr(adam, "adam", lambda schedule, **kw: seen.update(kw))
  method_of(optim__name="adam", optim__momentum=0.6, optim__weight_decay=0.2)._optimizer(Stage("noisy", 4))
  assert seen == {"b1": 0.6, "weight_decay": 0.2}


@pytest.mark.parametrize("accum", [1, 2])
def test_a_step_and_what_it_notes_of_each_example(accum):
  """SGD on sum w l; noted are the weights in units of the uniform one, and the share of pixels that agree."""
  slope, x = slopes("noisy")
  u = np.mean(np.multiply(*slopes("clean"))) * slope * x
  weight = np.maximum(u, 0) / np.maximum(u, 0).sum()
  method = method_of(train__accum=accum, method__clean_weight=0.0, method__track=3, method__track_size=2,
                     optim__momentum=0.0, optim__weight_decay=0.0, optim__lr=0.1, optim__schedule="constant")
  (stage,) = method.stages()
  batch = {**BATCH, "noisy": {**BATCH["noisy"], "sample": jnp.asarray([2, 0]), "flip": jnp.zeros((2, 2), int),
                              "crop": jnp.zeros((2, 3), int)}}
  w = jnp.float32(0.3)
  state = State.create({"net": w}, method._stats(), {"net": method._optimizer(stage)[0].init(w)})
  new, metrics = method.train_step(state, batch, jax.random.key(0), stage=stage, axis_name=None)
  np.testing.assert_allclose(new.params["net"], 0.3 - 0.1 * (weight * slope * x).sum(), rtol=1e-4)
  z, mask = 0.3 * x, BATCH["noisy"]["mask"]
  loss = np.log1p(np.exp(z)) - z * mask
  np.testing.assert_allclose(metrics["loss"], (weight * loss).sum(), rtol=1e-4)
  np.testing.assert_allclose(new.stats["track"]["seen"], [1, 0, 1])
  np.testing.assert_allclose(new.stats["track"]["agree"], [np.mean(u[1] > 0), 0, np.mean(u[0] > 0)])
  np.testing.assert_allclose(new.stats["track"]["weight"][jnp.asarray([2, 0])], 8 * weight[..., 0], rtol=1e-4,
                             atol=1e-6)


@pytest.mark.parametrize("steps, tuned", [(7, 3), (10, 4)])
def test_fine_tuning_has_its_share_of_the_steps_and_of_the_rate(steps, tuned):
  """The share rounded (0.36 of 7 steps are 3); its schedule counts from its own first step."""
  method = method_of(method__baseline="finetune", method__finetune_share=0.36, method__finetune_lr=0.1,
                     train__steps=steps, optim__lr=0.5, optim__schedule="cosine", optim__warmup=2,
                     optim__final=0.0, optim__momentum=0.0, optim__weight_decay=0.0)
  first, second = method_lib.stages_of(method)
  assert (first.name, first.steps, second.name, second.steps) == ("noisy", steps - tuned, "clean", tuned)
  w = jnp.float32(0.3)
  state = State.create({"net": w}, opt={"net": method._optimizer(second)[0].init(w)})
  new, metrics = method.train_step(state.replace(step=jnp.int32(second.begin)), BATCH, jax.random.key(0),
                                   stage=second, axis_name=None)
  np.testing.assert_allclose(metrics["lr"], 0.5 * 0.1 / 2, rtol=1e-6)
  slope = np.mean(np.multiply(*slopes("clean")))
  np.testing.assert_allclose(new.params["net"], 0.3 - 0.025 * slope, rtol=1e-5)


def test_validation_counts_pixels_of_a_probability_above_one_half():
  """Dice 2 |A and B| / (|A| + |B|), 1 where both are empty; logits are 0.3 x here."""
  image = jnp.asarray([[1, 0.5, -1, 2], [-1, -1, -1, -1], [-1, -1, -1, -1]], jnp.float32).reshape(3, 2, 2, 1)
  mask = jnp.asarray([[1, 0, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]], jnp.float32).reshape(3, 2, 2, 1)
  found = method_of().eval_step(State.create({"net": jnp.float32(0.3)}), {"image": image, "mask": mask}, None)
  np.testing.assert_allclose(found["dice"], [2 * 2 / (3 + 3), 1, 0])


@pytest.mark.parametrize("rows, columns", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_weights_are_noted_where_they_lie_in_the_file(rows, columns):
  """A map is mirrored back, rows and columns each by its own draw."""
  seen = jnp.arange(16.0).reshape(4, 4)
  found = reweighting._original_frame(seen, jnp.asarray([rows, columns]), jnp.zeros(3, int), 4)
  want = np.asarray(seen)[::-1 if rows else 1, ::-1 if columns else 1]
  np.testing.assert_allclose(found, want, atol=1e-4)


def test_every_gradient_of_a_step_is_accumulated_in_the_slices_of_the_config(monkeypatch):
  """It is the same in one slice; the memory is not."""
  slices, plain = [], noisy_annotation.parallel.value_and_grad
  monkeypatch.setattr(noisy_annotation.parallel, "value_and_grad", lambda *args, accum, **more: slices.append(
      accum) or plain(*args, accum=accum, **more))
  for fields in ({}, {"method__baseline": "plain", "method__clean_weight": 0.5}):
    method = method_of(train__accum=2, **fields)
    stage = method.stages()[0]
    state = State.create({"net": jnp.float32(0.3)}, method._stats(), {
        "net": method._optimizer(stage)[0].init(jnp.float32(0.3))})
    jax.eval_shape(functools.partial(method.train_step, stage=stage, axis_name=None), state, BATCH,
                   jax.random.key(0))
  assert slices == [2, 2, 2]
