"""Coarse noise of the denoising autoencoder, drawn in the input pipeline at low resolution.

Kascenas et al., MIDL 2022: z ~ N(0, sigma^2) on an r x r grid per image and channel, upsampled
(align_corners=True), shifted circularly by a random (rows, columns), multiplied by the foreground
and added. Only the field (a 64th of the bytes at r = 16, 128 x 128) and the shift are made here;
the jitted step does the rest, so the host stays cheap.
"""

from __future__ import annotations

from data_pipelines.errors import UserError

_FIELD, _ROWS, _COLUMNS = 101, 102, 103  # folded into the seed: other ops of the step draw others


def coarse_noise(res: int, std: float, roll: str = "batch"):
  """A batch op that adds "noise" and "roll" to a batch with "image" [b,H,W,C].

  Args:
    res: r, nodes of the coarse grid along each side, >= 1.
    std: sigma at the nodes, in units of the normalised intensity, >= 0.
    roll: "batch" = one shift shared by the batch (the reference), "example" = one an image.

  Returns:
    Function (batch, seed int32 [2], lo, hi, B) -> batch with "noise" [b,r,r,C] float32, already
    multiplied by sigma, and "roll" int32 [b,2] (rows in [0,H), columns in [0,W)); b = hi - lo rows
    of the global draw for B images.

  Raises:
    UserError: a parameter out of range.
  """
  if int(res) < 1 or float(std) < 0:
    raise UserError(f"config.data.noise_res={res} must be >= 1 and noise_std={std} >= 0")
  if roll not in ("batch", "example"):
    raise UserError(f"config.data.noise_roll={roll!r} is neither 'batch' nor 'example'")

  def op(batch, seed, lo, hi, B):
    from data_pipelines.tf import tf  # here: evaluation opens the data set and never draws
    image = batch["image"]
    h, w, c = image.shape[1:]
    field = tf.random.stateless_normal([B, res, res, c], tf.random.fold_in(seed, _FIELD))
    draws = 1 if roll == "batch" else B
    shift = tf.stack([
        tf.random.stateless_uniform([draws], tf.random.fold_in(seed, _ROWS), 0, h, tf.int32),
        tf.random.stateless_uniform([draws], tf.random.fold_in(seed, _COLUMNS), 0, w, tf.int32),
    ], axis=-1)
    shift = tf.broadcast_to(shift, [B, 2])
    return {**batch, "noise": (field * std)[lo:hi], "roll": shift[lo:hi]}
  return op
