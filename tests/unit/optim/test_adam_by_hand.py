"""The optimisers against a few lines of numpy: order of clipping and decay, AMSGrad, momentum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.optim import adam

RNG = np.random.default_rng(0)
START = {"a": RNG.normal(size=(3, 2)), "b": RNG.normal(size=(4,))}
GRADS = [{"a": RNG.normal(size=(3, 2)) * s, "b": RNG.normal(size=(4,)) * s}
         for s in (3.0, 0.01, 5.0, 0.1, 0.1)]


def flat(tree):
  return np.concatenate([np.ravel(tree[k]) for k in ("a", "b")]).astype(np.float64)


def ours(tx):
  """Parameters after each gradient, [5,10]."""
  params = {k: jnp.asarray(v, jnp.float32) for k, v in START.items()}
  state, found = tx.init(params), []
  for grads in GRADS:
    updates, state = tx.update({k: jnp.asarray(v, jnp.float32) for k, v in grads.items()}, state, params)
    params = {k: params[k] + updates[k] for k in params}
    found.append(flat(params))
  return np.array(found)


def by_hand(lr=0.1, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0, clip=None, amsgrad=False,
            eps_hat=False):
  """PyTorch's Adam with clip_grad_norm_ before it and its weight_decay as an L2 term; eps_hat: Keras' eps."""
  p, m, v, top, found = flat(START), 0.0, 0.0, 0.0, []
  for t, grads in enumerate(GRADS, 1):
    g = flat(grads)
    if clip:
      g = g * min(1.0, clip / (np.linalg.norm(g) + 1e-6))
    g = g + weight_decay * p
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    top = np.maximum(top, v)
    unbiased = np.sqrt(1 - b2**t)
    root = np.sqrt(top if amsgrad else v) / unbiased + (eps / unbiased if eps_hat else eps)
    p = p - (lr(t - 1) if callable(lr) else lr) * m / (1 - b1**t) / root
    found.append(p)
  return np.array(found)


@pytest.mark.parametrize("options", [
    {}, {"b1": 0.5, "b2": 0.9}, {"eps": 0.3}, {"weight_decay": 0.2}, {"clip": 0.5},
    {"clip": 0.5, "weight_decay": 0.2}, {"amsgrad": True, "b2": 0.5},
    {"clip": 0.5, "weight_decay": 0.2, "amsgrad": True, "b2": 0.5, "eps": 0.1},
    {"eps": 0.1, "eps_hat": True}])
def test_adam_is_pytorchs(options):
  np.testing.assert_allclose(ours(adam.adam(0.1, **options)), by_hand(**options), atol=2e-5)


def test_the_options_matter_on_these_gradients():
  """Otherwise the comparison above could not tell them apart."""
  plain = by_hand(clip=0.5)
  assert np.abs(by_hand() - plain).max() > 0.01
  decay_first = by_hand(weight_decay=0.2)   # without clipping: the order would not show
  assert np.abs(by_hand(clip=0.5, weight_decay=0.2) - decay_first).max() > 0.01
  assert np.abs(by_hand(amsgrad=True, b2=0.5) - by_hand(b2=0.5)).max() > 0.01


def test_the_schedule_counts_from_zero():
  rate = lambda t: 0.1 * (t + 1)
  np.testing.assert_allclose(ours(adam.adam(rate)), by_hand(lr=rate), atol=2e-5)


def test_clipping_leaves_short_gradients_and_their_direction():
  tx = adam.clip_by_global_norm(2.0)
  long, short = {"x": jnp.array([3.0, 4.0])}, {"x": jnp.array([0.3, 0.4])}
  np.testing.assert_allclose(tx.update(long, tx.init(long))[0]["x"], [1.2, 1.6], rtol=1e-5)
  np.testing.assert_allclose(tx.update(short, tx.init(short))[0]["x"], [0.3, 0.4], rtol=1e-6)


def test_clipping_is_by_the_norm_over_all_leaves():
  tx, grads = adam.clip_by_global_norm(2.0), {"a": jnp.array([3.0]), "b": jnp.array([[4.0]])}
  clipped, _ = tx.update(grads, tx.init(grads))
  np.testing.assert_allclose([clipped["a"][0], clipped["b"][0, 0]], [1.2, 1.6], rtol=1e-5)


def test_norm_of_small_and_large_leaves(backend):
  """On a GPU the small leaves are summed as one array: the same number."""
  tree = {"a": RNG.normal(size=(3, 2)), "b": 5.0, "c": RNG.normal(size=(300, 300)), "d": RNG.normal(size=7)}
  want = np.sqrt(sum(np.sum(np.square(x)) for x in tree.values()))
  found = adam.global_norm({k: jnp.asarray(v, jnp.float32) for k, v in tree.items()})
  np.testing.assert_allclose(found, want, rtol=1e-6)


@pytest.mark.parametrize("momentum,decay", [(0.0, 0.0), (0.9, 0.0), (0.9, 0.1), (0.0, 0.1)])
def test_sgd_is_pytorchs(momentum, decay):
  p, v, want = flat(START), None, []
  for grads in GRADS:
    g = flat(grads) + decay * p
    v = g if v is None or not momentum else momentum * v + g
    p = p - 0.1 * v
    want.append(p)
  found = ours(adam.sgd(0.1, momentum=momentum, weight_decay=decay))
  np.testing.assert_allclose(found, want, atol=2e-5)


@pytest.mark.parametrize("options", [
    {}, {"clip": 0.5}, {"clip": 0.5, "weight_decay": 0.1, "amsgrad": True}, None,
    {"own": lambda path: path[0].key == "b"}, {"own": lambda path: True}])
def test_gradients_joined_for_gpus_give_the_same_update_and_state(options, monkeypatch):
  """Bit for bit without clipping. With it the norm, summed in another order, differs in its last digit; the
  difference of gradient and decay then loses one more."""
  make = lambda: adam.sgd(0.1, momentum=0.9) if options is None else adam.adam(0.1, **options)
  with jax.enable_x64():
    params = {"a": jnp.asarray(RNG.normal(size=(3, 2))), "b": {"c": jnp.asarray(5.0)},
              "d": jnp.asarray(RNG.normal(size=7))}
    grads = jax.tree.map(lambda x: jnp.cos(3 * x), params)
    tx = make()
    plain = tx.update(grads, tx.init(params), params)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    joined = tx.update(grads, tx.init(params), params)
  assert jax.tree.structure(plain) == jax.tree.structure(joined)
  for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(joined)):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    np.testing.assert_allclose(a, b, rtol=1e-13 if options and "clip" in options else 0)


def test_own_gradients_are_not_read_from_the_joined_array(monkeypatch):
  """Joined, an update reads all leaves of the parameters that its gradient is made of: XLA copies them."""
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  tx, tree = adam.adam(0.1, clip=1.0, own=lambda path: path[0].key == "a"), {k: jnp.ones(3) for k in "abc"}
  program = jax.make_jaxpr(lambda t: tx.update(t, tx.init(t), t))(tree)
  joined = [len(e.invars) for e in program.eqns if e.primitive.name == "concatenate"]
  assert joined == [3, 2]  # for the norm, and for updates
