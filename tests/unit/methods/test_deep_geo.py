"""deep_geo: the transformations by hand, images that are not square, what is refused."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import stream
from data_pipelines.dataset import ArraySource, DataSet
from medae_jax.core.errors import UserError
from medae_jax.core.method import State
from medae_jax.methods import deep_geo
from medae_jax.methods._transformations import Transformations
from medae_jax.models import wide_resnet
from medae_jax.scores import dirichlet
from medae_jax.training import bookkeeping, start
from tests.contract import cases


def by_hand(image, flip, dy, dx, turns):
  """A transformation in words: mirror, reflect at the edge and cut, turn."""
  image = image[:, ::-1] if flip else image
  padded = np.pad(image, ((abs(dy),) * 2, (abs(dx),) * 2, (0, 0)), mode="symmetric")
  h, w = image.shape[:2]
  image = padded[abs(dy) + dy:abs(dy) + dy + h, abs(dx) + dx:abs(dx) + dx + w]
  return np.rot90(image, turns)


@pytest.mark.parametrize("shape,shift,rotations,count", [
    ((6, 9, 2), 2, 2, 36), ((9, 6, 5), 3, 1, 18), ((7, 7, 1), 3, 4, 72), ((4, 4, 3), 0, 4, 8),
    ((3, 3, 1), 7, 4, 72)])
def test_transformations_by_hand(shape, shift, rotations, count):
  """Any number of channels; rectangles with half turns; shifts beyond half of the image and all of it."""
  turns = Transformations(True, shift, rotations)
  assert len(turns) == count
  image = np.random.default_rng(0).random((2, *shape), np.float32)
  found = np.asarray(jax.jit(turns.each)(image, jnp.arange(count)))
  for t, parameters in enumerate(turns.parameters):
    for b in range(2):
      np.testing.assert_array_equal(found[b, t], by_hand(image[b], *parameters), err_msg=str(parameters))
  views = jnp.array([count - 1, 1])
  np.testing.assert_array_equal(jax.jit(turns.apply)(image, views), found[np.arange(2), views])


def test_rectangles_refuse_quarter_turns():
  with pytest.raises(UserError, match=r"6x9.*config.method.rotations=2"):
    Transformations(True, 2, 4).check(6, 9)
  Transformations(True, 5, 2).check(6, 9)
  with pytest.raises(UserError, match="config.method.shift=6: images are 6x9"):  # a mirror
    Transformations(True, 6, 2).check(6, 9)


def changed(**fields):
  config = cases.config("deep_geo_camelyon16").copy_and_resolve_references()
  with config.unlocked():
    config.update_from_flattened_dict(fields)
  return config


@pytest.mark.parametrize("fields,said", [
    ({"method.flip": False, "method.rotations": 1}, "nothing to recognise"),
    ({"method.rotations": 3}, "config.method.rotations=3"), ({"train.accum": 2}, "batch normalisation"),
    ({"model.blocks": 0}, "config.model.blocks=0"), ({"method.score.kind": "other"}, "score.kind='other'"),
    ({"optim.l2": -1.0}, "config.optim.l2")])
def test_what_is_refused(fields, said):
  with pytest.raises(UserError, match=said) as error:
    deep_geo.Method(changed(**fields))
  assert "\n" not in str(error.value)


class _Numbers(DataSet):
  def train(self):
    return ArraySource({"image": np.arange(5, dtype=np.float32)})


def test_an_epoch_holds_every_pair_of_image_and_view_once():
  """5 images with 4 views in batches of 4: 5 steps an epoch, and the second epoch has another order."""
  batches = stream.train_stream(_Numbers(), {}, batch_size=4, first_step=0, seed=0, views=4)
  pairs = [[(float(i), int(v)) for i, v in zip(b["image"], b["view"])] for b in
           (next(batches) for _ in range(10))]
  first, second = list(itertools.chain(*pairs[:5])), list(itertools.chain(*pairs[5:]))
  everything = sorted((float(i), v) for i in range(5) for v in range(4))
  assert sorted(first) == sorted(second) == everything and first != second != everything


def test_an_epoch_of_training_counts_pairs(tmp_path):
  """24 images with 8 views in batches of 8: 24 steps."""
  run = start.open_run(changed(**{"train.steps": 0, "train.epochs": 1.0}).lock(), str(tmp_path / "w"))
  run.close()
  assert run.config.train.steps == 24 and run.first_batch["view"].shape == (8,)


def test_a_best_state_that_is_the_last_is_fitted_once():
  run, fitted = bookkeeping.Run.__new__(bookkeeping.Run), []
  run.finalize = lambda state: (fitted.append(int(state.step)), state.replace(extra={"a": 1}))[1]
  last = State(jnp.int32(4), {}, extra={"a": 7})
  assert run._fitted_best(State(jnp.int32(4), {}), last).extra == {"a": 7} and not fitted
  assert run._fitted_best(State(jnp.int32(2), {}), last).extra == {"a": 1} and fitted == [2]


def test_views_at_once_change_the_memory_alone():
  """Micro-batches over transformations: the same scores whether 1, 3 (a divisor: 2) or all go at a time."""
  image = np.random.default_rng(0).uniform(-1, 1, (3, 16, 16, 3)).astype(np.float32)
  found = []
  for n in (1, 3, 100):
    method = deep_geo.Method(changed(**{"method.views_at_once": n}))
    state = method.init(jax.random.key(0), {"image": image})
    found.append(method.score(state, {"image": image}))
  for other in found[1:]:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found[0], other)
  assert "score_dirichlet" not in found[0]  # nothing is fitted yet: the simplified score
  np.testing.assert_array_equal(found[0]["score"], found[0]["score_simplified"])
  assert ((found[0]["score"] <= 0) & (found[0]["score"] >= -1)).all()


def test_windows_at_the_border_are_cut():
  x = np.random.default_rng(0).random((2, 10, 8, 3), np.float32)
  found = wide_resnet.window_means(jnp.asarray(x))
  assert found.shape == (2, 2, 1, 3)
  np.testing.assert_allclose(found[:, 0, 0], x[:, :8].mean((1, 2)), rtol=1e-5)
  np.testing.assert_allclose(found[:, 1, 0], x[:, 8:].mean((1, 2)), rtol=1e-5)


@pytest.mark.parametrize("blocks,widen,shape,count", [
    (1, 4, (32, 32, 3), 1214744), (2, 8, (64, 64, 1), 11103480), (2, 8, (64, 64, 3), 11103768)])
def test_published_sizes(blocks, widen, shape, count):
  """Trainable parameters of the three published networks."""
  net = wide_resnet.WideResNet(blocks, widen, 72)
  made = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, *shape))))
  assert sum(int(np.prod(x.shape)) for x in jax.tree.leaves(made["params"])) == count


@pytest.mark.parametrize("converged, level", [((1, 1), "INFO"), ((1, 0), "WARNING"), ((0, 0), "WARNING")])
@pytest.mark.parametrize("most, used", [(0, 5), (3, 3), (4, 4), (9, 5)])
def test_what_is_fitted_and_whether_it_converged(monkeypatch, caplog, converged, level, most, used):
  """Images that only fill up a batch are none; one transformation without an end is a warning."""
  caplog.set_level("INFO")
  method = deep_geo.Method(changed(**{"method.fit_images": most, "method.parity": False}))
  monkeypatch.setattr(method, "log_probabilities", lambda state, image: jnp.log(image))
  monkeypatch.setattr(deep_geo.parallel, "per_example_fn", lambda function: function)
  fits = []

  def fit(mean, log_mean):
    fits.append((mean, log_mean))
    return dirichlet.Fit(np.full((2, 2), 3.0), np.array([4, 7]), np.zeros(2), np.array(converged, bool))
  monkeypatch.setattr(dirichlet, "fit", fit)
  p = np.linspace(0.1, 0.8, 24).reshape(6, 2, 2).astype(np.float32)
  batches = [{"image": p[:4], "valid": np.array([1, 1, 1, 0], bool)},
             {"image": p[4:], "valid": np.array([1, 1], bool)}]
  state = method.finalize(State.create({}), batches)
  of = np.delete(p, 3, 0)[:used]
  np.testing.assert_allclose(fits[0][0], of.mean(0), rtol=1e-5)
  np.testing.assert_allclose(fits[0][1], np.log(of).mean(0), rtol=1e-5)
  said, = (r for r in caplog.records if "Dirichlet fit" in r.getMessage())
  assert said.levelname == level and said.getMessage() == (
      f"Dirichlet fit on {used} images: {sum(converged)} of 2 transformations converged, 4 to 7 iterations, "
      "sum of alpha 6 to 6")
  assert state.extra["fit_converged"].tolist() == list(map(bool, converged))


def test_the_score_is_minus_the_mean_log_density_over_the_transformations(monkeypatch):
  """-1/K sum_tk (alpha_tk - 1) log(y_tk + 1e-6), of a softmax that may be saturated; or minus mean y_tt."""
  rng = np.random.default_rng(0)
  p = rng.dirichlet(np.full(8, 0.3), (3, 8))
  p[0, 0] = np.eye(8)[1]
  with np.errstate(divide="ignore"):
    log_p = jnp.asarray(np.maximum(np.log(p), -1e4), jnp.float32)
  alpha = rng.uniform(0.2, 5, (8, 8)).astype(np.float32)
  density = ((alpha - 1) * np.log(p + 1e-6)).sum(-1)
  wanted = {"dirichlet": -density, "simplified": -np.diagonal(p, axis1=1, axis2=2)}
  for kind, contributions in wanted.items():
    method = deep_geo.Method(changed(**{"method.score.kind": kind}))
    monkeypatch.setattr(method, "log_probabilities", lambda state, image: log_p)
    found = method.score(State.create({}, extra={"alpha": jnp.asarray(alpha)}), {"image": None})
    np.testing.assert_allclose(found["contributions"], contributions, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["score"], contributions.mean(1), rtol=1e-4, atol=1e-5)
    for name, value in wanted.items():
      np.testing.assert_allclose(found[f"score_{name}"], value.mean(1), rtol=1e-4, atol=1e-5)


def test_the_loss_of_a_validation_is_of_all_transformations_with_every_square(monkeypatch):
  """-mean_t log y_tt + 0.00025 sum w^2 over kernels, gains, offsets and biases alike."""
  method = deep_geo.Method(changed())
  p = np.random.default_rng(1).dirichlet(np.ones(8), (2, 8))
  monkeypatch.setattr(method, "log_probabilities", lambda state, image: jnp.log(p))
  net = {"conv0": {"kernel": jnp.full((1, 1, 1, 2), 3.0)},
         "bn": {"scale": jnp.ones(4), "bias": jnp.full(2, 5.0)}}
  found = method.eval_step(State.create({"net": net}), {"image": None}, None)
  own = np.diagonal(p, axis1=1, axis2=2)
  np.testing.assert_allclose(found["cross_entropy"], -np.log(own).mean(1), rtol=1e-5)
  np.testing.assert_allclose(found["loss"], -np.log(own).mean(1) + 0.00025 * (18 + 4 + 50), rtol=1e-5)
  np.testing.assert_allclose(found["accuracy"], (p.argmax(-1) == np.arange(8)).mean(1))


def test_images_are_scored_by_stored_statistics_and_trained_by_their_batch(monkeypatch):
  method, seen = deep_geo.Method(changed()), []

  def apply(variables, x, train=False, **kw):
    seen.append(train)
    logits = jnp.zeros((len(x), 8))
    return (logits, {"batch_stats": variables["batch_stats"]}) if kw else logits
  method.net = types.SimpleNamespace(apply=apply)
  params = {"w": jnp.ones(1)}
  state = State.create({"net": params}, {"net": {}}, {"net": method.tx.init(params)})
  image = jnp.zeros((2, 16, 16, 3))
  method.log_probabilities(state, image)
  assert seen and not any(seen)
  seen.clear()
  batch = {"image": image, "view": jnp.zeros(2, jnp.int32)}
  method.train_step(state, batch, None, stage=None, axis_name=None)
  assert seen and all(seen)


@pytest.mark.parametrize("parity, name", [(True, "fixed_point"), (False, "fit")])
def test_parity_is_the_published_search_and_keras_running_variance(monkeypatch, parity, name):
  called = []
  fitted = dirichlet.Fit(np.ones((8, 8)), np.ones(8, int), np.zeros(8), np.ones(8, bool))
  for solver in ("fixed_point", "fit"):
    monkeypatch.setattr(dirichlet, solver, lambda *means, solver=solver: called.append(solver) or fitted)
  method = deep_geo.Method(changed(**{"method.parity": parity}))
  monkeypatch.setattr(method, "log_probabilities", lambda state, image: jnp.zeros((len(image), 8, 8)))
  monkeypatch.setattr(deep_geo.parallel, "per_example_fn", lambda function: function)
  method.finalize(State.create({}), [{"image": np.zeros((2, 1)), "valid": np.ones(2, bool)}])
  assert called == [name] and method.net.keras_variance == parity


def test_a_shortcut_takes_the_activated_input_and_an_identity_the_raw_one():
  """The residual branch is 0 here: x - 1 -> relu -> 1x1, times 2 and 3; same channels: x itself."""
  x = jnp.asarray([[-4.0, 0.5], [1.0, 3.0]]).reshape(1, 2, 2, 1)
  for features, want in ((2, np.maximum(x - 1, 0) * [2.0, 3.0]), (1, x)):
    block = wide_resnet._Block(features, 1, jnp.float32, dict(train=False, eps=0.0))
    made = jax.tree.map(jnp.zeros_like, block.init(jax.random.key(0), x))
    made["params"]["bn1"]["scale"] = jnp.ones(1)
    made["batch_stats"]["bn1"] = {"mean": jnp.ones(1), "var": jnp.ones(1)}
    made["batch_stats"]["bn2"] = jax.tree.map(jnp.ones_like, made["batch_stats"]["bn2"])
    if features == 2:
      made["params"]["shortcut"]["kernel"] = jnp.asarray([2.0, 3.0]).reshape(1, 1, 1, 2)
    np.testing.assert_allclose(block.apply(made, x), want, rtol=1e-6)


def test_a_normalisation_has_the_epsilon_that_tensorflow_makes_of_1e_5():
  """A channel without variance, one below its mean: 1 / sqrt(1.001e-5)."""
  net, x = wide_resnet.WideResNet(1, 1, 8), jnp.zeros((1, 8, 8, 3))
  made = net.init(jax.random.key(0), x)
  stats = {**made["batch_stats"], "bn_final": {"mean": jnp.full(64, -1.0), "var": jnp.zeros(64)}}
  _, seen = net.apply({"params": made["params"], "batch_stats": stats}, x, mutable=["intermediates"])
  np.testing.assert_allclose(seen["intermediates"]["pool"][0], 1.001e-5 ** -0.5, rtol=1e-5)
