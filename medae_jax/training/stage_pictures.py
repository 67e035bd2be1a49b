"""A picture at the end of every training stage: <workdir>/stages/<number>_<stage>.png.

For methods with several stages and `pictures` (progressive growing): a few validation images, the
same ones in every stage, each beside what the method makes of it by then.
"""

from __future__ import annotations

import pathlib

from absl import logging
import jax
import numpy as np

from data_pipelines import stream
from data_pipelines.dataset import Subset
from medae_jax.core import files, parallel
from medae_jax.reporting import panels

IMAGES = 6   # rows: evenly spread over the validation images
_CELL = 96   # pixels of a picture's longer side, at least


def write(workdir, number: int, stage, method, state, dataset) -> pathlib.Path | None:
  """Writes the picture of a stage's last state; the first process does.

  Args:
    number: place of the stage in the order of training.
    state: the state at the stage's end.

  Returns:
    The file, or None where the method shows nothing or there are no validation images.
  """
  source = dataset.split("val") if "val" in dataset.splits else dataset.validation()
  if not hasattr(source, "read") or not len(source):
    return None
  model = state.replace(opt={})
  if jax.process_count() > 1:
    model = parallel.to_host(model)
  if jax.process_index():
    return None
  places = np.unique(np.linspace(0, len(source) - 1, IMAGES).astype(int))
  batch = next(stream.eval_batches(Subset(source, places), batch_size=len(places)))
  shown = parallel.per_example_fn(lambda s, b: method.pictures(s, b, jax.random.key(0)), seldom=True)(
      model, {k: batch[k] for k in ("image", "index")})
  if not shown:
    return None
  shown = {"image": batch["image"], **shown}
  shown = {name: shown[name] for name in sorted(shown, key=lambda n: (n != "image", n == "map"))}
  cells = [[_picture(name, np.asarray(v[i])) for name, v in shown.items()]
           for i in range(len(places))]
  words = [str(source.meta(int(p)).get("id", int(p))) for p in places]
  if "label" in batch:
    words = [f"{w}, {'anomalous' if l else 'normal'}" for w, l in zip(words, batch["label"])]
  warning = "SYNTHETIC DATA: computer-generated images, not patients" if dataset.synthetic else ""
  path = files.write_png(
      pathlib.Path(workdir) / "stages" / f"{number}_{stage.name}.png",
      panels.grid(cells, list(shown), words, f"end of stage {stage.name}, step {int(state.step)}",
                  warning))
  logging.info("Picture: %s", path)
  return path


def _picture(name, value):
  """[H,W,C] in [0,1] -> uint8 [h,w,3]: colour where there are three channels, maps as heat."""
  factor = max(1, -(-_CELL // max(value.shape[:2])))
  big = value.repeat(factor, 0).repeat(factor, 1)
  if name == "map":
    return panels.heat(big[..., 0], 1.0)
  return panels.colour(big)
