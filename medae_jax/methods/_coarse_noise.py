"""Coarse noise on the device: the second half of what data_pipelines.ops.coarse_noise begins.

The pipeline (or `draw`) makes the low-resolution field, a 64th of the image's bytes; here it is
upsampled, rolled and masked inside the jitted step (Kascenas 2022, "coarse noise").
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

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
  return upsample(coarse, *matrices(roll, coarse.shape[1], height, width, coarse.dtype))


def matrices(roll, resolution: int, height: int, width: int, dtype=jnp.float32):
  """Rolled interpolation matrices, [B,height,r] and [B,width,r]; see `upsample_and_roll`."""
  dtype = jnp.promote_types(dtype, jnp.float32)
  rows, columns = (jnp.asarray(resample.aligned_matrix(size, resolution), dtype) for size in (height, width))
  rolled = lambda matrix, shift: matrix[(jnp.arange(matrix.shape[0])[None] - shift[:, None])
                                        % matrix.shape[0]]
  return rolled(rows, roll[:, 0]), rolled(columns, roll[:, 1])


def upsample(coarse, rows, columns):
  """[B,height,width,C]: coarse [B,r,r,C] by `matrices`."""
  high = jax.lax.Precision.HIGHEST  # tiny products; TF32 would show in the field
  field = jnp.einsum("bhi,bijc->bhjc", rows, coarse, precision=high)
  return jnp.einsum("bwj,bhjc->bhwc", columns, field, precision=high)


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


def fixed(draws: int, shape, resolution: int, std: float) -> tuple[np.ndarray, ...]:
  """Fields that never change, of key 0: coarse [draws,1,r,r,C] and the `matrices` that upsample each.

  Arrays of numpy, so constants of a program that is traced: exported formats know no random numbers. Computed
  at the first call, by a program of its own whatever is being traced.
  """
  return _fixed(draws, shape, resolution, std, jax.dtypes.canonicalize_dtype(float))


@functools.lru_cache(maxsize=16)
def _fixed(draws, shape, resolution, std, dtype):
  del dtype  # of what is drawn: 64 bits are other numbers
  def all_of_them():
    def one(key):
      coarse, roll = draw(key, jnp.zeros((1,), jnp.int32), shape, resolution, std, "example")
      return coarse, *matrices(roll, resolution, *shape[:2])
    return jax.vmap(one)(jax.random.split(jax.random.key(0), draws))
  return tuple(np.asarray(x) for x in jax.jit(all_of_them).lower().compile()())
