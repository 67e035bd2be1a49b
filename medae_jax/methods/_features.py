"""Features of a frozen backbone inside a compiled program: resize, enter, run, pool, concatenate.

Fields of `config.method` (shared by every method on frozen features):
  backbone          name in models/backbone.py: inception_resnet_v2, vgg16, vgg19, efficientnet_lite0 ...
  backbone_weights  PATH, or "random:SEED" by explicit choice; "" stops with the name of the file to get
  taps              layers joined by + or commas ("r33+r43"); "default" = the last one of the backbone,
                    "concat" = all of them
  size              side to which images are resized on the device, whatever their shape; 0 = as they are
  eight_bit         rounds the resized image to grey levels, as Pillow does with images of 8 bits
  dtype             of the backbone: float32, or bfloat16 (faster on accelerators)
  cache             folder that keeps pooled features (_feature_cache.py): further seeds, layers and
                    evaluations of the same images cost no pass of the backbone; "" = nothing is kept

The backbone lives in state.params["backbone"], cut after the deepest tap, so that a checkpoint scores
on machines without the file of weights. Images are [B,H,W,1 or 3] in [-1, 1]; grey ones are repeated.
"""

from __future__ import annotations

from collections.abc import Iterable
import functools
import tempfile

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core import checks, parallel
from medae_jax.core.errors import UserError
from medae_jax.core.method import Need
from medae_jax.methods._feature_cache import FeatureCache, named
from medae_jax.models import backbone as backbones
from medae_jax.models.layers import resample
from medae_jax.models.layers.dtype import at_least_float32
from medae_jax.weights import backbones as weights

NET = "backbone"  # its name in State.params
NEED = Need("BHWC", low=-1, high=1, note="1 or 3 channels")
RULES = {"method.backbone": checks.text, "method.backbone_weights": checks.text, "method.taps": checks.text,
         "method.size": checks.whole(0, 4096), "method.eight_bit": checks.flag,
         "method.dtype": checks.choice("float32", "bfloat16"), "method.cache": checks.text}


class Features:
  """Built once from the config; pure functions of the parameters after that.

  Args:
    taps: in place of config.method.taps, for methods with several sets of them.

  Attributes:
    taps: names, in the order in which `pooled` concatenates them.

  Raises:
    UserError: an unknown backbone or tap, or a field out of its range.
  """

  def __init__(self, config, taps: str | None = None, field: str = "taps"):
    checks.apply(config, RULES, optional=("method.cache", *(() if taps is None else ("method.taps",))))
    self._config = config.method
    self._net = backbones.get(self._config.backbone)
    self.taps = parse_taps(self._config.taps if taps is None else taps, self._net, field)
    self._folder = self._config.get("cache", "")

  def init_params(self) -> dict:
    """{"backbone": zeros}, for `Method.init`; `pretrained` has the values."""
    c = self._config
    return {NET: jax.tree.map(jnp.asarray, weights.zeros(c.backbone, c.backbone_weights, self.taps))}

  def pretrained(self) -> dict:
    """What `init_params` left empty, read from a file or drawn: for `Method.pretrained`.

    Raises:
      UserError, OSError: as weights.backbones.load.
    """
    c = self._config
    params, described = weights.load(c.backbone, c.backbone_weights, self.taps)
    logging.info("Backbone: %s; taps %s.", described, ", ".join(self.taps))
    return {NET: params}

  def check_shape(self, shape) -> None:
    """Refuses images [B,H,W,C] that the backbone cannot take.

    Raises:
      UserError: neither 1 nor 3 channels, or too small.
    """
    size = self._config.size or min(shape[1:3])
    if shape[3] not in (1, 3):
      raise UserError(f"images have {shape[3]} channels; {self._net.name} takes 1 (repeated) or 3: see "
                      "config.data")
    if size < self._net.least_size:
      raise UserError(f"{self._net.name} needs images of {self._net.least_size} pixels or more and gets "
                      f"{size}: set config.method.size")

  def maps(self, params, image: jax.Array) -> dict[str, jax.Array]:
    """{tap: [B,h,w,C]}, at least float32, of images [B,H,W,1 or 3] in [-1, 1]."""
    size, dtype = self._config.size, jnp.dtype(self._config.dtype)
    image = 0.5 * image + 0.5
    if size:
      image = resample.antialiased(image, (size, size), eight_bit=self._config.eight_bit)
    if image.shape[-1] == 1:
      image = jnp.repeat(image, 3, axis=-1)
    dtype = jnp.promote_types(image.dtype, dtype) if dtype == jnp.float32 else dtype  # float64 stays
    found = self._net.features(params[NET], self._net.enter(image, 0, 1), self.taps, dtype)
    return {tap: at_least_float32(found[tap]) for tap in self.taps}

  def pooled(self, params, image: jax.Array) -> jax.Array:
    """Means of the taps over rows and columns, one behind the other: [B,D], at least float32."""
    maps = self.maps(params, image)
    return jnp.concatenate([maps[tap].mean((1, 2)) for tap in self.taps], -1)

  def rows(self, state, batches: Iterable) -> np.ndarray:
    """`pooled` of all valid images of `finalize`'s batches: float32 [N,D], in their order.

    A memory map of a file that is gone with the array: memory holds a batch, however many there are.

    Raises:
      UserError: no image.
    """
    from medae_jax.core import scoring  # needs ml_collections, which benchmarks of features do without
    with tempfile.TemporaryFile() as file, scoring.progress("features", None, "images") as bar:
      width = 0
      for batch in batches:
        part = self.rows_of(state, batch["image"])[np.asarray(batch["valid"])]
        width = part.shape[1]
        file.write(np.ascontiguousarray(part, np.float32).data)
        bar.update(len(part))
      if not file.tell():
        raise UserError("there are no normal images to fit to: see config.data")
      file.flush()
      return np.memmap(file, np.float32, "r", shape=(file.tell() // (4 * width), width))

  def rows_of(self, state, image: np.ndarray) -> np.ndarray:
    """`pooled` on all local devices, or out of config.method.cache: [B,D] on the host."""
    compute = lambda: self._compiled({NET: state.params[NET]}, {"image": image})
    if not self._folder:
      found = compute()
      return np.concatenate([np.asarray(found[tap]) for tap in self.taps], -1)
    return np.concatenate(self._cache(state.params[NET], image, self.taps, compute), -1)

  def prepare(self, state, batch):
    """For `Method.prepare`: the batch with "features" [B,D] in it where they are kept."""
    return {**batch, "features": self.rows_of(state, batch["image"])} if self._folder else batch

  @functools.cached_property
  def _compiled(self):
    means = lambda maps: {tap: value.mean((1, 2)) for tap, value in maps.items()}
    return parallel.per_example_fn(lambda params, batch: means(self.maps(params, batch["image"])))

  @functools.cached_property
  def _cache(self):
    c = self._config
    names = lambda tap: list(named(weights.zeros(c.backbone, c.backbone_weights, (tap,))))
    return FeatureCache(self._folder, f"{c.backbone} {c.size} {c.eight_bit} {c.dtype}", names)


def parse_taps(text: str, net, field: str) -> tuple[str, ...]:
  """Names of layers of a backbone out of config.method.taps.

  Args:
    field: of config.method that says it, for messages.
    text: "a+b" or "a,b"; "default" and "concat" as the module's docstring says.

  Raises:
    UserError: no tap, an unknown one, or one twice.
  """
  taps = tuple(filter(None, (t.strip() for t in text.replace("+", ",").split(","))))
  if taps == ("concat",):
    return tuple(net.taps)
  if taps == ("default",):
    return tuple(net.taps)[-1:]
  unknown = [t for t in taps if t not in net.taps]
  if unknown or not taps or len(set(taps)) < len(taps):
    raise UserError(f"config.method.{field}={text!r}: {net.name} has {', '.join(net.taps)}, each once, "
                    "joined by +; or default, or concat")
  return taps
