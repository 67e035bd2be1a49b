"""The networks that `config.model` of DPA describes, checked before anything is built.

Fields: kind, max_res, latent_dim, latent_res, enc_widths (fine to coarse), dec_widths (coarse to
fine; () = the encoder's reversed), critic_widths (() = the encoder's), norm, pad, use_wscale,
normalize_latents, pool, upsample, allow_long_widths, dtype.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from medae_jax.core.errors import UserError
from medae_jax.models.dpa_nets import KINDS, Decoder, Encoder, coarsest, needed_widths


def build(m, channels: int, res: int, transition: bool, *, critic: bool) -> dict[str, nn.Module]:
  """{"enc", "dec"} and, with `critic`, "critic" of the stage at `res`."""
  common = dict(kind=m.kind, transition=transition, pad=m.pad, dtype=jnp.dtype(m.dtype))
  nets = {"enc": Encoder(tuple(m.enc_widths), res, m.latent_dim, m.latent_res, max_res=m.max_res,
                         norm=m.norm, use_wscale=m.use_wscale, pool=m.pool, **common),
          "dec": Decoder(dec_widths(m), res, channels, m.latent_res, norm=m.norm,
                         use_wscale=m.use_wscale, upsample=m.upsample,
                         normalize_latents=m.normalize_latents, **common)}
  if critic:  # without normalisation: an example's score must not depend on its neighbours
    nets["critic"] = Encoder(critic_widths(m), res, 1, 1, max_res=m.max_res, **common)
  return nets


def dec_widths(m) -> tuple[int, ...]:
  """Coarse to fine."""
  return tuple(m.dec_widths) or tuple(reversed(m.enc_widths))


def critic_widths(m) -> tuple[int, ...]:
  """Fine to coarse."""
  return tuple(m.critic_widths) or tuple(m.enc_widths)


def check_model(m, *, first_res: int, critic: bool) -> None:
  """Refuses a `config.model` that cannot work.

  Args:
    first_res: resolution of the first stage.
    critic: whether there is a discriminator.

  Raises:
    UserError: one line naming the field.
  """
  common = dict(kind=m.kind, max_res=m.max_res, latent_dim=m.latent_dim, pad=m.pad,
                exact_widths=not m.allow_long_widths)
  check(role="enc", latent_res=m.latent_res, widths=m.enc_widths, norm=m.norm,
        use_wscale=m.use_wscale, pool=m.pool, **common)
  check(role="dec", latent_res=m.latent_res, widths=dec_widths(m), norm=m.norm,
        use_wscale=m.use_wscale, upsample=m.upsample, normalize_latents=m.normalize_latents,
        **common)
  if critic:
    check(role="critic", latent_res=1, widths=critic_widths(m), **common)
  if first_res < coarsest(m.latent_res):
    raise UserError(f"config.method.growing.initial_res={first_res} is below the coarsest block, "
                     f"{coarsest(m.latent_res)} px")


def check(*, kind: str, max_res: int, latent_res: int, widths: Sequence[int], role: str,
          latent_dim: int, norm="none", pad="zero", use_wscale=False, use_mbstddev=False,
          pool="avg", upsample="nearest", normalize_latents=False, exact_widths=True) -> None:
  """Refuses what the public code ignores silently or fails on later.

  Args:
    role: "enc" or "dec", for the message and the rule on latent_dim.
    exact_widths: also refuse width lists that are too long, whose surplus the public code drops at
      the fine end.

  Raises:
    UserError: one line naming the field.
  """
  def bad(text):
    raise UserError(f"config.model.{role}: {text}")
  power = lambda n: n > 0 and n & (n - 1) == 0
  if kind not in KINDS:
    bad(f"kind={kind!r}; use one of {', '.join(KINDS)}")
  if not power(max_res) or (latent_res != 1 and (latent_res < 4 or not power(latent_res))):
    bad(f"image resolution {max_res} must be a power of two, latent_res={latent_res} 1 or a power "
        "of two from 4")
  f = coarsest(latent_res)
  if max_res < f or (kind == "regular" and max_res < 2 * f):
    bad(f"image resolution {max_res} is too small for latent_res={latent_res} ({kind})")
  need = needed_widths(max_res, latent_res)
  if len(widths) < need or (exact_widths and len(widths) > need):
    bad(f"{len(widths)} widths {tuple(widths)} (config.model.{role}_widths), but {max_res} px with "
        f"latent_res={latent_res} needs {need}")
  if norm not in ("none", "bn", "in", "pixel") or pad not in ("zero", "reflect"):
    bad(f"norm={norm!r}, pad={pad!r}; use norm none, bn, in or pixel and pad zero or reflect")
  if pool not in ("avg", "max") or upsample not in ("nearest", "bilinear"):
    bad(f"pool={pool!r}, upsample={upsample!r}; use pool avg or max, upsample nearest or bilinear")
  if kind == "regular":
    if pad == "reflect" and latent_res == 1 and role == "dec":
      bad("a 1x1 latent cannot be reflect-padded; use pad='zero' or latent_res >= 4")
    return
  if use_wscale or use_mbstddev or pool != "avg" or upsample != "nearest" or normalize_latents:
    bad(f"use_wscale, use_mbstddev, pool, upsample and normalize_latents exist in the regular "
        f"family only, not in {kind}")
  if role == "dec" and latent_res > 1 and latent_dim != widths[0]:
    bad(f"with latent_res={latent_res} the first block keeps the latent's width: latent_dim="
        f"{latent_dim} must equal widths[0]={widths[0]}")
