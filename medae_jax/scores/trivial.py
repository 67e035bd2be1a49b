"""Image scores that need no network and no training: what an anomaly method has to beat.

  mean, std    of the image's intensities
  laplacian    mean |4 x - sum of the four neighbours|: how much fine texture there is
  entropy      of the histogram of intensities (64 bins over the images' range), in bits
  jpeg         bytes of the image as a JPEG of quality 75: how much there is to say about it
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

NAMES = ("mean", "std", "laplacian", "entropy", "jpeg")


def scores(images: np.ndarray, span: tuple[float, float]) -> dict[str, np.ndarray]:
  """{name: float64 [N]} of images [N,H,W,C]; which end is anomalous is for a validation split to say.

  Args:
    span: lowest and highest intensity: black and white of the JPEG, ends of the histogram.
  """
  flat = lambda x: x.reshape(len(x), -1).astype(np.float64)
  inner = images[:, 1:-1, 1:-1]
  around = (images[:, 2:, 1:-1] + images[:, :-2, 1:-1] + images[:, 1:-1, 2:]
            + images[:, 1:-1, :-2])
  return {"mean": flat(images).mean(1), "std": flat(images).std(1),
          "laplacian": flat(np.abs(4 * inner - around)).mean(1),
          "entropy": _entropy(images, span), "jpeg": _jpeg(images, span)}


def _entropy(images, span):
  """Bits [N] of the histogram of each image."""
  share = np.stack([np.histogram(np.clip(image, *span), 64, span)[0] for image in images]) / images[0].size
  return -(share * np.log2(np.where(share > 0, share, 1))).sum(1)


def _jpeg(images, span):
  """Bytes [N] of each image as a JPEG; of channels that are neither grey nor RGB, the sum over channels."""
  unit = np.clip((images - span[0]) / max(span[1] - span[0], 1e-9), 0, 1)
  pixels = (unit * 255).round().astype(np.uint8)
  planes = [pixels] if pixels.shape[-1] == 3 else [pixels[..., c] for c in range(pixels.shape[-1])]
  return np.sum([[_bytes(image) for image in plane] for plane in planes], 0).astype(np.float64)


def _bytes(pixels):
  with io.BytesIO() as file:
    Image.fromarray(pixels).save(file, "JPEG", quality=75)
    return file.tell()
