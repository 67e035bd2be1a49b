"""Pyramidal TIFF slides for tests: synthetic tissue with holes and at the border, blank, damaged, deep."""

import numpy as np

from data_pipelines.slides import writer

PINK, VIOLET, WHITE = (226, 160, 200), (120, 60, 150), 243


def tissue(height, width, seed=0, border=True):
  """uint8 [height,width,3]: pink blobs with violet nuclei on a bright background, a hole in the first.

  Args:
    border: one blob is cut by the left edge.
  """
  rng = np.random.default_rng(seed)
  image = np.clip(rng.normal(WHITE, 3, (height, width, 3)), 0, 255)
  for top, left, ry, rx in blobs(height, width, border):
    y, x = np.ogrid[:height, :width]
    inside = ((y - top) / ry) ** 2 + ((x - left) / rx) ** 2
    on = (inside < 1) & ((inside > 0.04) | (left < 0.3 * width))
    image[on] = np.clip(rng.normal(PINK, 12, (int(on.sum()), 3)), 0, 255)
    nuclei = on & (rng.random((height, width)) < 0.08)
    image[nuclei] = np.clip(rng.normal(VIOLET, 10, (int(nuclei.sum()), 3)), 0, 255)
  return image.astype(np.uint8)


def blobs(height, width, border=True):
  """(row, column, half height, half width) of the ellipses of `tissue`."""
  found = [(0.5 * height, 0.62 * width, 0.33 * height, 0.25 * width)]
  return [*found, (0.45 * height, 0.0, 0.2 * height, 0.16 * width)] if border else found


def blank(height, width, value=WHITE):
  """uint8 [height,width,3] without tissue."""
  return np.full((height, width, 3), value, np.uint8)


def with_alpha(image, share=0.1):
  """RGBA: the left `share` of the width is transparent, and black below."""
  out = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
  out[:, :int(share * image.shape[1])] = 0
  return out


def write_slide(path, image, mpp=0.25, downsamples=(1, 4, 16), deep=0, bad_levels=(), bad_tile=None):
  """Writes [H,W,3 or 4] as a tiled pyramidal TIFF; returns `path`.

  Args:
    mpp: micrometres a pixel; None = the file does not say.
    downsamples: of the levels, powers of two; the means of the finer pixels.
    deep: 16 = 16 bits over the whole range; 12 = 12 bits in 16.
    bad_levels: levels whose tiles are overwritten with nonsense. bad_tile: of them, this tile alone.
  """
  image = {0: lambda i: i, 16: lambda i: i.astype(np.uint16) * 257, 12: lambda i: i.astype(np.uint16) * 16}[
      deep](image)
  levels, done = [image], 1
  for downsample in downsamples[1:]:
    level = levels[-1]
    while done < downsample:
      size = [-(-n // 2) for n in level.shape[:2]]
      level = writer.halved(level, np.empty((*size, level.shape[2]), level.dtype))
      done *= 2
    levels.append(level)
  writer.write_pyramid(path, levels, mpp, alpha="unassalpha")
  for level in bad_levels:
    damage(path, level, bad_tile)
  return path


def damage(path, level, tile=None):
  """Overwrites the tiles (or one tile) of a level, as a bad disk or a broken download does."""
  import tifffile
  with tifffile.TiffFile(path) as file:
    page = file.pages[level]
    places = list(zip(page.dataoffsets, page.databytecounts))
  with open(path, "r+b") as raw:
    for offset, count in places if tile is None else [places[tile]]:
      raw.seek(offset)
      raw.write(b"\xff" * count)
