"""Measures what a run is trained on, for trained_on.json, once, before its first step."""

from __future__ import annotations

import concurrent.futures
from typing import Any

from absl import logging
import numpy as np

from data_pipelines.dataset import DataSet
from data_pipelines.errors import UserError
from data_pipelines.formats import dicom, doubts, images
from data_pipelines.intake import find as finder
from medae_jax.core.trained_on import fit
from medae_jax.core.trained_on.record import TrainedOn

_EXAMPLES = 64  # spread evenly over the training images
_HEADERS = 512  # DICOM headers that are looked at
_FILES = 12     # of these whose files are looked at for colour and DICOM words


def measure(config, dataset: DataSet, first_batch) -> TrainedOn | None:
  """The record of a run.

  Args:
    first_batch: stands in where the data set cannot say how training images look when they are scored.

  Returns:
    None where there is no "image" [H,W,C] to be measured.
  """
  examples, metas = _sample(dataset, first_batch)
  if not examples:
    return None
  modalities = tuple(config.data.get("modalities", ()))
  channels = examples[0].shape[-1]
  kind = "volume" if modalities and len(modalities) == channels else "image"
  own = np.stack([fit.quantiles(e, kind) for e in _units(examples, metas)])
  filled = own.any((1, 2))  # of background alone there are none
  pooled = np.mean(own[filled], 0) if filled.any() else own[0]
  far = [fit.distance(q, pooled) for q in own[filled]] or [0.0]
  paths = _paths(metas) if kind == "image" else []
  aspect = _aspect(paths)
  coloured, words = _of_files(paths)
  volume = kind == "volume"
  low, high = float(min(e.min() for e in examples)), float(max(e.max() for e in examples))
  if low == high and len(examples) > 1:
    logging.warning("All %d training images looked at are of one grey, %g, all over: are they, or is "
                    "config.data.window not in the units of the files?", len(examples), low)
  elif kind == "image":
    flat = [str(m.get("path", "?")) for e, m in zip(examples, metas) if not np.ptp(e)]
    doubts.say_flat(flat, len(examples), "the training")
  return TrainedOn(
      dataset=dataset.name, synthetic=bool(dataset.synthetic), variant=str(config.get("variant", "")),
      kind=kind, modalities=modalities if volume else (), channels=channels,
      size=(examples[0].shape[0], examples[0].shape[1]),
      low=low, high=high,
      quantiles=tuple(tuple(float(v) for v in channel) for channel in pooled),
      usual=float(np.quantile(far, 0.95)),
      background=float(np.quantile([fit.background(e) for e in examples], 0.05)) if volume else 0.0,
      coloured=coloured, dicom=words, orientation=str(config.data.get("orientation", "")) if volume else "",
      placement=str(config.data.get("placement", "")) if volume else "",
      field_mm=float(config.data.get("field_mm", 0.0)) if volume else 0.0,
      spacing=_spacing(metas) if volume else (), examples=len(examples), aspect=aspect,
      intents=() if volume else _intents(dataset),
      middle=() if volume else tuple(float(v) for v in np.round(doubts.middle(
          [doubts.small(e) for e in examples]), 5)))


def _units(examples, metas) -> list[np.ndarray]:
  """What predict compares at a time: the slices of a scan together, images one by one."""
  scans: dict[Any, list[np.ndarray]] = {}
  for i, (example, meta) in enumerate(zip(examples, metas)):
    scans.setdefault(meta.get("patient", i) if "slice" in meta else i, []).append(example)
  return [np.stack(members) for members in scans.values()]


def _spacing(metas) -> tuple[float, ...]:
  known = [m["spacing"] for m in metas if len(m.get("spacing", ())) == 3]
  return tuple(float(v) for v in np.median(known, axis=0)) if known else ()


def _sample(dataset, first_batch) -> tuple[list[np.ndarray], list[dict[str, Any]]]:
  """([h,w,C], ...) as they are scored, and what the data set says of each."""
  try:
    source = dataset.fitting()
    places = np.unique(np.linspace(0, len(source) - 1, min(_EXAMPLES, len(source))).astype(int))
    if source.ragged:
      found = [source.read_one(int(i)).get("image") for i in places]
    else:  # at once: a source may read several at a time
      found = source.read(places).get("image", [None] * len(places))
    read = [(image, source.meta(int(i))) for image, i in zip(found, places)]
  except (UserError, NotImplementedError) as e:
    logging.debug("trained_on.json is measured on the first batch: %s", e)
    batch = next((part for part in (first_batch, *first_batch.values())
                  if hasattr(part, "keys") and "image" in part), {})
    read = [(image, {}) for image in np.asarray(batch.get("image", ()))]
  good = [(np.asarray(image, np.float32), meta) for image, meta in read
          if image is not None and np.ndim(image) == 3 and np.isfinite(image).all()]
  return [image for image, _ in good], [meta for _, meta in good]


def _paths(metas) -> list[str]:
  """The files that hold one picture each."""
  return [m["path"] for m in metas if m.get("path") and finder.kind_of(m["path"]) in ("image", "dicom")]


def _aspect(paths) -> float:
  """The height of a pixel by its width that all images share; 1, with one warning, where they differ: all
  readers of images take pixels for squares, and shapes differ then."""
  found = [doubts.aspect(path) for path in paths] or [(1.0, "")]
  ratios = [ratio for ratio, _ in found]
  if doubts.same_aspect(max(ratios), min(ratios)):
    return float(np.median(ratios))
  odd = [(path, said) for path, (_, said) in zip(paths, found) if said]
  logging.warning("%d of the %d training images looked at have pixels that are not square, the first %s: "
                  "%s, and not all have the same; they are read as if they were: bring all images to one "
                  "form, else shapes differ", len(odd), len(paths), *odd[0])
  return 1.0


def _intents(dataset) -> tuple[str, ...]:
  """Whether radiographs are raw or processed, by up to _HEADERS headers; one warning where both are."""
  try:
    source = dataset.fitting()
    places = np.unique(np.linspace(0, len(source) - 1, min(_HEADERS, len(source))).astype(int))
    paths = [p for p in _paths([source.meta(int(i)) for i in places]) if finder.kind_of(p) == "dicom"]
  except (UserError, NotImplementedError):
    return ()
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    found = list(zip(pool.map(dicom.intent, paths), paths))
  first = {word: path for word, path in reversed(found) if word}
  if len(first) > 1:
    raw = sum(word == "raw" for word, _ in found)
    logging.warning("%d of the %d radiographs looked at are raw (FOR PROCESSING), the first %s, the others "
                    "processed (FOR PRESENTATION), the first %s: their greys differ, and both may be of one "
                    "exposure: keep one kind", raw, len(found), first["raw"], first["processed"])
  return tuple(sorted(first))


def _of_files(paths) -> tuple[float | None, tuple[str, ...]]:
  """(share of colour pictures among the files, None where there is none; their DICOM words)."""
  colours, words = [], set()
  for path in paths[::max(1, len(paths) // _FILES)][:_FILES]:
    try:
      colours.append(fit.colour_share(images.read_values(path)) >= fit.COLOURED)
      words.add(dicom.modality(path))
    except (UserError, OSError):  # training itself has its own words for it
      continue
  # Where some files do not say what they are, the others' words decide nothing.
  return (float(np.mean(colours)) if colours else None), (() if "" in words else tuple(sorted(words)))
