"""Coarse noise on the device: the second half of what data_pipelines.ops.coarse_noise begins.

The pipeline (or `draw`) makes the low-resolution field, a 64th of the image's bytes; here it is
upsampled, rolled and masked inside the jitted step (Kascenas 2022, "coarse noise").
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medae_jax.core.errors import UserError
from medae_jax.core.method import example_keys
from medae_jax.models.layers import resample


def upsample_and_roll(coarse, roll, height: int, width: int):
  """Coarse fields to the image size (aligned corners), shifted circularly.

  Half-pixel centres would move the field by up to 0.3-0.6 in intensity.

  Args:
    coarse: [B,r,r,C], already scaled by the noise's standard deviation.
    roll: int32 [B,2], shift along rows and columns; positive moves content to larger indices.

  Returns:
    [B,height,width,C]. The shift is applied to the rows of the two small interpolation matrices,
    not to the images: roll(A z A^T) = roll(A) z roll(A)^T.
  """
  r = coarse.shape[1]
  dtype = jnp.promote_types(coarse.dtype, jnp.float32)
  rows = jnp.asarray(resample.aligned_matrix(height, r), dtype)
  columns = jnp.asarray(resample.aligned_matrix(width, r), dtype)
  rolled = lambda matrix, shift: matrix[(jnp.arange(matrix.shape[0])[None] - shift[:, None])
                                        % matrix.shape[0]]  # [B,size,r]
  high = jax.lax.Precision.HIGHEST  # tiny products; TF32 would show in the field
  field = jnp.einsum("bhi,bijc->bhjc", rolled(rows, roll[:, 0]), coarse, precision=high)
  return jnp.einsum("bwj,bhjc->bhwc", rolled(columns, roll[:, 1]), field, precision=high)


def draw(rng, index, shape, resolution: int, std: float, roll: str = "batch"):
  """Coarse fields and rolls drawn on the device.

  Args:
    rng: key of the step; index: int32 [B], place in the global batch.
    shape: (height, width, channels) of the images.
    roll: "batch" shares one roll (reference), "example" draws one an image.

  Returns:
    coarse [B,r,r,C], roll int32 [B,2].
  """
  if roll not in ("batch", "example"):
    raise UserError(f"noise_roll={roll!r} is neither 'batch' nor 'example'")
  height, width, channels = shape
  keys = example_keys(rng, index)
  coarse = std * jax.vmap(lambda k: jax.random.normal(k, (resolution, resolution, channels)))(keys)
  limits = jnp.array([height, width])
  one = lambda k: jax.random.randint(jax.random.fold_in(k, 1), (2,), 0, limits)
  if roll == "example":
    return coarse, jax.vmap(one)(keys)
  return coarse, jnp.broadcast_to(one(jax.random.fold_in(rng, 2**31 - 1)), (index.shape[0], 2))
