"""Reconstruction losses per image: L1, L2, 1 - SSIM and distances of a frozen trunk's features.

Shvetsova et al. 2021 (arXiv 2006.13265), as its public code computes its relative perceptual loss.
For each layer k with weight w_k, f~ = (f - mu_k) / sigma_k (or f), rho(t) = |t| (or t^2):

  e_k = mean_CHW rho(f~(image) - f~(recon)),   relative: divided by mean_CHW rho(f~(image)),
  loss = sum_k w_k e_k / sum_k w_k.

The magnitude in the relative form is per image, includes the shift by mu_k and is a constant for
the gradient. The pseudo-layer "image" stands for the pixels as they enter the trunk, never shifted
by feature statistics. The DPA loss, `relative_perceptual_L1`, has all three switches on.

The network of features, the range of the images and their normalisation are arguments (trunk.Trunk).
Images are NHWC; reconstructions are not clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp

from medae_jax.core.errors import UserError
from medae_jax.losses import ssim
from medae_jax.losses.pixel import absolute
from medae_jax.losses.trunk import Trunk

NAMES = ("l1", "l2", "ssim", "perceptual", "relative_perceptual_L1")
PIXEL = ("l1", "l2", "ssim")  # those without features


@dataclasses.dataclass(frozen=True)
class Term:
  """One weighted loss.

  Attributes:
    name: "l1", "l2", "ssim" or "perceptual".
    weight: factor of this term in the sum (terms are not renormalised).
    layers: {resolution: {layer: weight}}, resolution 0 = any; "image" among the layers adds the
      trunk's input. Empty for those of PIXEL.
    normalize, absolute, relative: the three switches above.
  """
  name: str
  weight: float = 1.0
  layers: Mapping[int, Mapping[str, float]] = dataclasses.field(default_factory=dict)
  normalize: bool = False
  absolute: bool = False
  relative: bool = False

  def at(self, res: int) -> Mapping[str, float]:
    """Layer weights at a resolution.

    Raises:
      UserError: none are given for it.
    """
    if self.name != "perceptual":
      return {}
    found = self.layers.get(res, self.layers.get(0))
    if not found or not any(found.values()):
      raise UserError(f"no layer for resolution {res} (it has {sorted(self.layers)}; 0 means any)")
    return {layer: weight for layer, weight in found.items() if weight}


def parse_layers(text: str, check: Callable | None = None) -> dict[int, dict[str, float]]:
  """{resolution: {layer: weight}} of "r32", "r32+0.5*r42" or "8:r12, 16:r22, 32:r32+0.5*image".

  Without a resolution in front the layers hold for any (0).

  Args:
    check: called with a list of names, raises for one that the trunk lacks (models.vgg.check_layers).

  Raises:
    UserError: what `check` raises, a resolution that is not a number, or a layer named twice.
  """
  layers = {}
  for part in filter(str.strip, text.split(",")):
    res, colon, terms = part.rpartition(":")
    if colon and not re.fullmatch(r"\s*[0-9]+\s*", res):
      raise UserError(f"layers {text!r}: write RESOLUTION:LAYERS, e.g. '32:r32+r42'")
    weights = layers.setdefault(int(res) if colon else 0, {})
    for factor, layer in _factors(terms, text):
      if check and layer != "image":
        check([layer])
      if layer in weights:
        raise UserError(f"layers {text!r}: {layer} is named twice; write it once, with one factor")
      weights[layer] = factor
  return layers


def _factors(text: str, whole: str) -> list[tuple[float, str]]:
  """[(factor, name)] of "name + 0.5*name"."""
  found = []
  for part in text.split("+"):
    match = re.fullmatch(r"\s*(?:([0-9]+\.?[0-9]*|\.[0-9]+)\s*\*\s*)?(\w+)\s*", part)
    if not match:
      raise UserError(f"{whole!r}: write names, optionally with a factor, joined by '+': "
                      "'relative_perceptual_L1 + 0.1*l1', 'r32 + 0.5*r42'")
    found.append((float(match[1] or 1), match[2]))
  return found


def parse(text: str, *, layers: str | Mapping, **switches) -> tuple[Term, ...]:
  """Terms of an expression such as "relative_perceptual_L1 + 0.1*l1".

  Args:
    text: names of `NAMES`, optionally with a factor, joined by "+".
    layers: for the perceptual terms: text for `parse_layers`, or what it returns.
    switches: normalize, absolute, relative of a plain "perceptual" term.

  Raises:
    UserError: an unknown name or layer.
  """
  layers = parse_layers(layers) if isinstance(layers, str) else layers
  terms = []
  for weight, name in _factors(text, text):
    if name not in NAMES:
      raise UserError(f"loss {text!r}: {name!r} is none of {', '.join(NAMES)}")
    if name in PIXEL:
      terms.append(Term(name, weight))
    elif name == "perceptual":
      terms.append(Term(name, weight, layers, **switches))
    else:
      terms.append(Term("perceptual", weight, layers, True, True, True))
  return tuple(terms)


def layers_of(terms: Sequence[Term], resolutions: Sequence[int]) -> tuple[str, ...]:
  """Names of the trunk's layers that `terms` read at these resolutions, sorted."""
  return tuple(sorted({k for t in terms for r in resolutions for k in t.at(r) if k != "image"}))


# ------------------------------------------------------------------------------- single losses
def l1(image: jax.Array, recon: jax.Array) -> jax.Array:
  """Mean absolute difference, [B,H,W,C] x 2 -> [B]."""
  return absolute(image - recon).mean((1, 2, 3))


def l2(image: jax.Array, recon: jax.Array) -> jax.Array:
  """Mean squared difference, [B,H,W,C] x 2 -> [B]."""
  return ((image - recon)**2).mean((1, 2, 3))


def real_features(trunk: Trunk, image: jax.Array, layers: Sequence[str]) -> dict[str, jax.Array]:
  """Raw features of the real image {layer: [B,h,w,C]}, without gradient.

  They do not depend on the networks: where images are not augmented they can be computed once and
  passed to the losses as `real`.
  """
  names = [k for k in layers if k != "image"]
  image = trunk.input(jax.lax.stop_gradient(image))
  return {**trunk(image, names), "image": image}


def perceptual(term: Term, trunk: Trunk, image: jax.Array, recon: jax.Array,
               weights: Mapping[str, float], real: Mapping | None = None) -> jax.Array:
  """The feature distance above with these layer weights; `term.weight` is not applied.

  Args:
    image, recon: [B,H,W,1|3].
    real: `real_features` of image, if they are there already.

  Returns:
    [B].
  """
  errors = _differences(term, trunk, image, recon, weights, real)
  total = sum(weights[layer] * error.mean((1, 2, 3)) for layer, error in errors.items())
  return total / sum(weights.values())


def perceptual_map(term: Term, trunk: Trunk, image: jax.Array, recon: jax.Array,
                   weights: Mapping[str, float], real: Mapping | None = None) -> jax.Array:
  """Where the distance comes from: channel means of rho, each layer resized to the image.

  Bilinear with half-pixel centres. With one layer this is the reference's "pixelwise" reduction;
  several layers are averaged with their weights (beyond the reference).

  Returns:
    [B,H,W,1]; its mean over the image is about the loss.
  """
  errors = _differences(term, trunk, image, recon, weights, real)
  shape = (*image.shape[:3], 1)
  resized = {k: jax.image.resize(e.mean(-1, keepdims=True), shape, "bilinear", antialias=False)
             for k, e in errors.items()}
  return sum(weights[k] * m for k, m in resized.items()) / sum(weights.values())


def _differences(term, trunk, image, recon, weights, real):
  """{layer: rho(f~(image) - f~(recon)) [B,h,w,C]}, divided by the image's magnitude if relative."""
  if real is None:
    real = real_features(trunk, image, tuple(weights))
  fake_input = trunk.input(recon)
  fake = {**trunk(fake_input, [k for k in weights if k != "image"]), "image": fake_input}
  rho = absolute if term.absolute else jnp.square
  out = {}
  for layer in weights:
    a, b = jax.lax.stop_gradient(real[layer]), fake[layer]
    if term.normalize and layer != "image":
      mean, std = (jax.lax.stop_gradient(trunk.stats[layer][k]) for k in ("mean", "std"))
      a, b = (a - mean) / std, (b - mean) / std
    error = rho(a - b)
    if term.relative:
      error = error / rho(a).mean((1, 2, 3), keepdims=True)
    out[layer] = error
  return out


def _unit(trunk, *images):
  """Images in [0,1], out of the range that the trunk is told; without one they are in it."""
  low, high = (trunk.low, trunk.high) if trunk is not None else (0.0, 1.0)
  return [(x - low) / (high - low) for x in images]


# --------------------------------------------------------------------------------- sums of terms
def term_loss(term: Term, trunk: Trunk | None, image: jax.Array, recon: jax.Array, res: int,
              real: Mapping | None = None) -> jax.Array:
  """One term for each image, [B], without its weight; arguments as in `per_image`."""
  if term.name == "ssim":
    return ssim.ssim_loss(*_unit(trunk, image, recon))
  if term.name != "perceptual":
    return (l1 if term.name == "l1" else l2)(image, recon)
  return perceptual(term, trunk, image, recon, term.at(res), real)


def per_image(terms: Sequence[Term], trunk: Trunk | None, image: jax.Array, recon: jax.Array, *,
              res: int | None = None, real: Mapping | None = None) -> jax.Array:
  """Sum of the weighted terms for each image: the training loss (its mean) and the score.

  Args:
    trunk: None is fine if no term is perceptual.
    res: resolution whose layers are taken; None: the image's.
    real: features of `image` for all layers of `res`.

  Returns:
    [B].
  """
  res = image.shape[1] if res is None else res
  total: Any = sum(term.weight * term_loss(term, trunk, image, recon, res, real) for term in terms)
  return total


def anomaly_map(terms: Sequence[Term], trunk: Trunk | None, image: jax.Array, recon: jax.Array, *,
                res: int | None = None, real: Mapping | None = None) -> jax.Array:
  """Per-pixel sum of the weighted terms, [B,H,W,1] (l1 and l2: mean over channels)."""
  res = image.shape[1] if res is None else res
  total: Any = 0.0
  for term in terms:
    if term.name == "perceptual":
      value = perceptual_map(term, trunk, image, recon, term.at(res), real)
    elif term.name == "ssim":
      value = 1 - ssim.ssim_map(*_unit(trunk, image, recon)).mean(-1, keepdims=True)
    else:
      difference = jnp.abs(image - recon)
      value = (difference if term.name == "l1" else difference**2).mean(-1, keepdims=True)
    total = total + term.weight * value
  return total
