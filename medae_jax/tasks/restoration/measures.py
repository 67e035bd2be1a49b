"""Numbers of one restored frame against its clean partner, and their sums over a split."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def ssim(first: np.ndarray, second: np.ndarray, window: int = 11) -> float:
  """Mean structural similarity of two [H,W,C] in [0,1], float64; as losses.ssim.ssim_map."""
  c1, c2 = 0.01**2, 0.03**2
  mean = lambda x: ndimage.uniform_filter(
      x, (window, window, 1), mode="constant", output=np.float64)
  a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
  ma, mb = mean(a), mean(b)
  va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
  top = (2 * ma * mb + c1) * (2 * cov + c2)
  return float(np.mean(top / ((ma**2 + mb**2 + c1) * (va + vb + c2) + 1e-7)))


def psnr(squared_error: float) -> float:
  """10 log10(1 / mean squared error), at most 100 dB (equal images)."""
  return float(min(100.0, -10 * np.log10(max(squared_error, 1e-10))))


def measure(result: np.ndarray, clean: np.ndarray, annotated: np.ndarray, mask: np.ndarray,
            level: float) -> dict[str, float]:
  """One frame.

  Args:
    result, clean, annotated: float32 [H,W,C] in [0,1]; mask: bool [H,W] of the drawn pixels.
    level: grey levels of 255 within which a mark pixel counts as removed.

  Returns:
    psnr, ssim: of the frame. sums for pooling: inside_pixels, inside_abs, inside_sq, removed;
    outside_pixels, outside_abs, outside_sq, outside_changed (differs from the input at all).
  """
  error = np.abs(result.astype(np.float64) - clean)
  worst, outside = error.max(-1), ~mask
  square = (error**2).mean(-1)
  changed = np.abs(result - annotated).max(-1) > 1e-6
  return {"psnr": psnr(square.mean()), "ssim": ssim(result, clean),
          "inside_pixels": float(mask.sum()), "inside_abs": float(error.mean(-1)[mask].sum()),
          "inside_sq": float(square[mask].sum()),
          "removed": float((worst[mask] <= level / 255 + 1e-6).sum()),
          "outside_pixels": float(outside.sum()),
          "outside_abs": float(error.mean(-1)[outside].sum()),
          "outside_sq": float(square[outside].sum()),
          "outside_changed": float(changed[outside].sum())}


def summary(rows: list[dict[str, float]], marked: np.ndarray, weights: np.ndarray | None = None
            ) -> dict[str, float]:
  """Numbers of a split out of `measure`'s rows.

  Args:
    marked: bool [n], frames with any drawn pixel.
    weights: [n] how often each frame counts (bootstrap); None = once.

  Returns:
    psnr, ssim: means over marked frames. mae_inside, psnr_inside, removed_share, residual_share:
    over all drawn pixels. mae_outside, psnr_outside, untouched_changed_share: over all others.
    identity_mae, identity_changed_share: over frames without any mark.
  """
  w = np.ones(len(rows)) if weights is None else np.asarray(weights, float)
  column = lambda key: np.array([r[key] for r in rows])
  total = lambda key, where: float((w * column(key))[where].sum())
  ratio = lambda a, b: a / b if b else float("nan")
  every, n_marked = np.ones(len(rows), bool), float(w[marked].sum())
  inside, outside = total("inside_pixels", every), total("outside_pixels", every)
  blank = total("outside_pixels", ~marked)
  removed = ratio(total("removed", every), inside)
  return {"psnr": ratio(total("psnr", marked), n_marked),
          "ssim": ratio(total("ssim", marked), n_marked),
          "mae_inside": ratio(total("inside_abs", every), inside),
          "psnr_inside": psnr(ratio(total("inside_sq", every), inside)) if inside else float("nan"),
          "removed_share": removed, "residual_share": 1 - removed,
          "mae_outside": ratio(total("outside_abs", every), outside),
          "psnr_outside": psnr(ratio(total("outside_sq", every), outside)) if outside else (
              float("nan")),
          "untouched_changed_share": ratio(total("outside_changed", every), outside),
          "identity_mae": ratio(total("outside_abs", ~marked), blank),
          "identity_changed_share": ratio(total("outside_changed", ~marked), blank)}
