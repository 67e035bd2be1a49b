"""Anomaly maps or lesion probabilities of whole slides, for runs that were trained on image patches.

Of each slide, in --output: <name>_anomaly.tif (_prob.tif of segmentation), the map, float32, and
<name>_heat.tif, its colours, both tiled pyramids over the whole slide; <name>_regions.geojson, what lies
above the threshold, in level-0 pixels; <name>_overlay.png; <name>_fields.csv and .png, the hottest tiles;
<name>_slide.json, how it was made and that it is finished. The slide's score is the mean of the highest
1 % (config.predict.slide.top) of the scores of its tiles. docs/slides.md.
"""

from __future__ import annotations

import hashlib
import json
import math
import pathlib
import shutil
from typing import Any

from absl import logging
import numpy as np

from data_pipelines.intake import counts
from data_pipelines.intake.names import result_names
from data_pipelines.slides import plan as plans, reader, stream
from medae_jax.core import files, scoring
from medae_jax.core.errors import UserError
from medae_jax.core.trained_on import fit
from medae_jax.tasks.base import BasePredictor
from medae_jax.tasks.slides import written
from medae_jax.tasks.slides.scorer import Scorer, resolution
from medae_jax.tasks.slides.work import Work

_LOOKED_AT = 16  # tiles that are compared with the images of the training
_TASKS = {"anomaly": ("anomaly", "Anomaly"), "segmentation": ("prob", "Lesion")}


class Predictor(BasePredictor):
  """See the module's docstring.

  Args:
    inner: the predictor of the run's task: its thresholds.
    step: of the checkpoint.
    output: folder of the results.
  """

  def __init__(self, inner: BasePredictor, step: int, output: pathlib.Path):
    super().__init__(inner.config, inner.calibration, inner.score_fn)
    kind = self.config.eval.kind
    if kind not in _TASKS or self.config.data.get("modalities", ()):
      raise UserError("the input is a slide, and this run does not score image patches ("
                      + (kind if kind not in _TASKS else "it was trained on slices of volumes") + ")")
    self._suffix, self._class = _TASKS[kind]
    self.threshold = getattr(inner, "threshold", None)
    self._tile_threshold = getattr(inner, "image_threshold", None)
    self._step, self._output = step, output
    self._files: list[pathlib.Path] = []  # of the slide in hand, where an earlier run has finished it
    self._scorer: Any = None  # made with the first slide, when image_shape is known

  def find_inputs(self, input_path):
    root = pathlib.Path(input_path)
    self.found = plans.find(root)
    self._names, self._root = result_names(self.found.files, root, flat=True), root
    return self.found.files

  def name_of(self, item):
    return counts.shown(item, self._root) if item != self._root else item.name

  def predict_one(self, item, out_dir):
    if self._scorer is None:
      self._scorer = Scorer(self.config, self.image_shape, self.score_fn)
    name, out_dir, key = self._names[item], pathlib.Path(out_dir), self._key(item)
    finished = self._finished(name, key)
    if finished is not None:
      return finished
    with reader.open_slide(item, self.config.predict.slide.own_mpp) as slide:
      return self._predict(slide, item, name, out_dir, key)

  def after(self, item):
    shutil.rmtree(self._work_folder(self._names[item]), ignore_errors=True)
    finished, self._files = self._files, []
    return finished

  def _predict(self, slide, item, name, out_dir, key):
    scorer, chosen = self._scorer, self.config.predict.slide
    downsample = resolution(self.config, slide)
    plan = plans.make(slide, downsample, scorer.tile, scorer.margin, chosen.tissue)
    scale = downsample * scorer.pixel  # level-0 pixels a pixel of the map
    shape = (math.ceil(slide.height / scale), math.ceil(slide.width / scale))
    logging.info("%s: %s, %d x %d pixels, read by %s at 1/%.4g; %d of %d tiles of %d pixels have tissue.",
                 item, slide.vendor, slide.width, slide.height, slide.engine, downsample, len(plan.places),
                 plan.shape[0] * plan.shape[1], plan.tile)
    warnings = self._admit(slide, item, plan)
    work = Work(self._work_folder(name), key, shape, len(plan.places))
    self._score(slide, plan, work, self.name_of(item))
    row = self._write(written.Scored(slide, plan, work, name, out_dir, scale))
    record = {"key": key, "row": row, "warnings": warnings,
              "files": written.names(name, out_dir), "source": str(item.resolve()),
              "vendor": slide.vendor, "engine": slide.engine, "mpp": slide.mpp,
              "score": f"mean of the highest {chosen.top:.3g} of the tiles' scores, at least one",
              "plan": {"downsample": downsample, "tile": plan.tile, "margin": plan.margin,
                       "map_pixel": scale, "grid": plan.shape, "tiles": len(plan.places)}}
    files.write_json(out_dir / f"{name}_slide.json", record)
    return row

  def _admit(self, slide, item, plan):
    """Asks the gate about some tiles spread over the tissue; returns what it warned of."""
    chosen = np.unique(np.linspace(0, len(plan.places) - 1, _LOOKED_AT).round().astype(int))
    tiles = np.stack([plan.read(slide, int(i)) for i in chosen])
    seen = fit.Seen("image", 3, fit.colour_share(tiles))
    self.gate.form(self.name_of(item), seen)
    self.gate.content(self.name_of(item), seen, np.stack([self._scorer.example(t) for t in tiles]))
    return self.gate.warnings

  def _score(self, slide, plan, work, title):
    """All tiles into `work`, from where an earlier run stopped."""
    size, n = int(self.config.predict.get("batch_size", 16)), len(plan.places)
    example = lambda i: self._scorer.example(plan.read(slide, i))
    if work.done:
      logging.info("%s: going on after %d of %d batches.", title, work.done, -(-n // size))
    waiting = None
    with scoring.progress(title, n, "tiles") as bar:
      bar.update(min(n, work.done * size))

      def finish(number, found):
        rows = slice(number * size, min(n, (number + 1) * size))
        cores, scores = self._scorer.finish(found, rows.stop - rows.start)
        work.put(number, rows.start, plan.places[rows], cores, scores)
        bar.update(len(scores))
      for number, batch in stream.batches(example, n, size, work.done):
        started = number, self._scorer.start(batch)  # the host places one map while the device makes the next
        if waiting:
          finish(*waiting)
        waiting = started
      if waiting:
        finish(*waiting)
    work.note()

  def _write(self, found):
    tile_threshold = None if self._suffix == "prob" else self._tile_threshold
    threshold, top = self.threshold, (self.calibration or {}).get("map_max")
    if self._suffix == "prob":
      top = 1.0
    elif not self._scorer.has_map:  # scores of tiles are cut at the threshold of images
      threshold = self.config.predict.threshold or tile_threshold
      top = 2 * threshold if (threshold or 0) > 0 else None
    return written.write(found, self._suffix, self._class, self.config.predict.slide, threshold,
                         tile_threshold, top)

  # ------------------------------------------------------------------------------- resuming
  def _work_folder(self, name):
    return self._output / f".{name}_unfinished"

  def _key(self, item) -> str:
    """Of all that a slide's numbers depend on."""
    info = item.stat()
    plain = {g: self.config[g].to_dict() for g in ("method", "model", "data")}
    chosen = {**self.config.predict.to_dict(), "input": "", "output": ""}
    told = [str(item.resolve()), info.st_size, info.st_mtime_ns, self._step, plain, chosen,
            self.threshold, self._tile_threshold]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()

  def _finished(self, name, key):
    """The row of a slide that an earlier run has finished; None where there is none."""
    path = self._output / f"{name}_slide.json"
    try:
      record = json.loads(path.read_text(encoding="utf-8"))
      done = record["key"] == key and all((self._output / f).is_file() for f in record["files"])
    except (OSError, ValueError, KeyError, TypeError):
      return None
    if not done:
      return None
    for line in record["warnings"]:
      self.gate.warn(name, line)
    self._files = sorted([path, *(self._output / f for f in record["files"])])
    logging.info("%s is finished already: %s", name, path)
    return record["row"]
