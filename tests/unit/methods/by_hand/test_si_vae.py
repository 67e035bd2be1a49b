"""Both losses of the soft-introspective VAE around networks by hand.

The published gamma is 1e-8: no comparison of runs shows its term.
"""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from medae_jax.methods.autoencoders import si_vae

WEIGHTS = {"beta_rec": 0.75, "beta_kl": 0.5, "beta_neg": 3.0, "gamma": 0.25}


def use(net, x):
  """code [B,2] -> image [B,2,2,1] of its sum; image -> (mean, log variance) of its corners."""
  if net == "dec":
    return 0.1 * np.asarray(x).sum(-1)[:, None, None, None] + np.array([[0.0, 0.3], [0.1, 0.2]])[..., None]
  return 0.5 * x[:, 0, :, 0], 0.2 * x[:, 1, :, 0] - 0.1


def made():
  found = object.__new__(si_vae.Method)
  found.config = ml_collections.ConfigDict({"method": WEIGHTS})
  rng = np.random.default_rng(0)
  part = {"image": rng.random((3, 2, 2, 1)), "code": rng.normal(size=(3, 2)),
          **dict(zip(si_vae.DRAWS, rng.normal(size=(len(si_vae.DRAWS), 3, 2))))}
  return found, part


def squared(a, b):
  return ((a - b) ** 2).sum((1, 2, 3))


def kl(mean, log_var):
  return 0.5 * (np.exp(log_var) + mean**2 - 1 - log_var).sum(-1)


def coded(image, noise):
  mean, log_var = use("enc", image)
  return mean + np.exp(0.5 * log_var) * noise


def test_the_encoder_tells_real_images_from_made_ones():
  method, part = made()
  loss, terms, code = method._encoder(use, part)
  image, w = part["image"], WEIGHTS
  want_code = coded(image, part["real"])
  fake, recon = use("dec", part["prior"]), use("dec", want_code)
  own = w["beta_rec"] * squared(image, recon) + w["beta_kl"] * kl(*use("enc", image))
  pushed = [np.exp(-2 / 4 * (w["beta_rec"] * squared(x, use("dec", coded(x, noise)))
                             + w["beta_neg"] * kl(*use("enc", x)))) / 4
            for x, noise in ((recon, part["rec"]), (fake, part["fake"]))]
  np.testing.assert_allclose(code, want_code, rtol=1e-5)
  np.testing.assert_allclose(loss, own / 4 + sum(pushed), rtol=1e-5)
  np.testing.assert_allclose(terms["rec_exp"], 4 * pushed[0], rtol=1e-5)


def test_the_decoder_makes_both_pass_for_real():
  method, part = made()
  loss, terms, _ = method._decoder(use, part)
  image, w = part["image"], WEIGHTS
  fake, recon = use("dec", part["prior"]), use("dec", part["code"])
  again = [squared(x, use("dec", coded(x, part[f"{name}_decoder"])))
           for name, x in (("rec", recon), ("fake", fake))]
  divergence = [kl(*use("enc", x)) for x in (recon, fake)]
  want = w["beta_rec"] * squared(image, recon) + w["beta_kl"] * sum(divergence) / 2 \
      + w["gamma"] * w["beta_rec"] * sum(again) / 2
  np.testing.assert_allclose(loss, want / 4, rtol=1e-5)
  for name, value in zip(("rec_rec", "fake_rec", "rec_kl", "fake_kl"), (*again, *divergence)):
    np.testing.assert_allclose(terms[name], value, rtol=1e-5)


# ------------------------------------------------------------------------------------- their gradients
def nets(w):
  """As `use`, of a number each."""
  def use(net, x):
    if net == "dec":
      return w["dec"] * jnp.sum(x, -1)[:, None, None, None] + w["dec"]**2 * jnp.array([[0.0, 0.3]])[..., None]
    return w["enc"] * x[:, 0, :, 0], 0.4 * w["enc"] * x[:, -1, :, 0] - 0.1
  return use


def drawn(found, noise):
  return found[0] + jnp.exp(0.5 * found[1]) * noise


def of_encoder(w, held, part):
  """`held`: the weights of what is only looked at."""
  use, still, square = nets(w), nets(held), lambda a, b: ((a - b) ** 2).sum((1, 2, 3))
  kl = lambda mean, log_var: 0.5 * (jnp.exp(log_var) + mean**2 - 1 - log_var).sum(-1)
  coded = lambda use: drawn(use("enc", part["image"]), part["real"])
  made_by = lambda use: (use("dec", coded(use)), use("dec", part["prior"]))
  loss = WEIGHTS["beta_rec"] * square(part["image"], made_by(use)[0]) + WEIGHTS["beta_kl"] * kl(
      *use("enc", part["image"]))
  for picture, seen, name in zip(made_by(use), made_by(still), ("rec", "fake")):
    found = use("enc", seen)
    again = use("dec", drawn(found, part[name]))
    bound = WEIGHTS["beta_rec"] * square(picture, again) + WEIGHTS["beta_neg"] * kl(*found)
    loss = loss + jnp.exp(-2 / 4 * bound)
  return (loss / 4).mean()


def of_decoder(w, held, part):
  use, still, square = nets(w), nets(held), lambda a, b: ((a - b) ** 2).sum((1, 2, 3))
  kl = lambda mean, log_var: 0.5 * (jnp.exp(log_var) + mean**2 - 1 - log_var).sum(-1)
  loss = WEIGHTS["beta_rec"] * square(part["image"], use("dec", part["code"]))
  for start, name in ((part["code"], "rec"), (part["prior"], "fake")):
    picture, seen = use("dec", start), still("dec", start)
    again = use("dec", drawn(still("enc", seen), part[f"{name}_decoder"]))
    loss = loss + WEIGHTS["beta_kl"] * kl(*use("enc", picture)) / 2
    loss = loss + WEIGHTS["gamma"] * WEIGHTS["beta_rec"] * square(seen, again) / 2
  return (loss / 4).mean()


@pytest.mark.parametrize("group, by_hand", [("enc", of_encoder), ("dec", of_decoder)])
def test_gradients_stop_at_what_is_only_looked_at(group, by_hand):
  method, part = made()
  part, w = {k: jnp.asarray(v, jnp.float32) for k, v in part.items()}, {"enc": 0.7, "dec": 0.4}
  loss = {"enc": method._encoder, "dec": method._decoder}[group]
  found = jax.jit(jax.grad(lambda w: loss(nets(w), part)[0].mean()))(w)[group]
  want = jax.jit(jax.grad(lambda w: by_hand(w, {"enc": 0.7, "dec": 0.4}, part)))(w)[group]
  np.testing.assert_allclose(found, want, rtol=1e-4)
