"""What every data set looks like: a finite list of examples with random access, and its splits.

A data set is a module `data_pipelines/datasets/<config.data.name>.py`, or lies outside:
config.data.name is "package.module:Name" then. `Module` (modules.py) lists the functions such a module
has, with what happens where one is left out; only `build` is needed. A data set knows nothing of
batches, epochs or hosts: `data_pipelines.stream` makes the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import difflib
import importlib
import pkgutil
from typing import Any

import numpy as np

from data_pipelines import outside
from data_pipelines.errors import UserError
from data_pipelines.modules import Module


class Source:
  """A finite list of examples with random access.

  Attributes:
    ragged: True where sizes differ between examples: the stream then calls `read_one` and the
      `example_ops` (which must bring the examples to one size) before it stacks a batch.
    example_ops: tf functions (example dict, seed int32 [2]) -> dict, applied to one example before
      batching. Only tf.random.stateless_*; the seed is [seed, place in the training stream].
    batch_ops: tf functions (batch dict, seed int32 [2] = [seed, step], lo, hi, B) -> dict. The dict
      holds rows lo:hi of the global batch of B: draw for all B with the seed, keep rows lo:hi, so
      that the numbers do not depend on how many hosts share the batch.
  """

  ragged: bool = False
  example_ops: Sequence[Callable] = ()
  batch_ops: Sequence[Callable] = ()

  def __len__(self) -> int:
    raise NotImplementedError

  def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    """Examples at `indices`, int [n], stacked [n, ...] in the order asked. Pure, thread-safe."""
    examples = [self.read_one(int(i)) for i in indices]
    return {key: np.stack([e[key] for e in examples]) for key in examples[0]}

  def read_one(self, i: int) -> dict[str, np.ndarray]:
    """Example i without a batch axis."""
    return {key: value[0] for key, value in self.read(np.array([i])).items()}

  def meta(self, i: int) -> dict[str, Any]:
    """{"id", "patient" or "group", "slice", "path", "finding", ...} of example i, for CSV files."""
    return {"id": str(i)}


class ArraySource(Source):
  """Examples held in memory.

  Args:
    arrays: {key: [n, ...]}, all of one length.
    metas: n dicts for `meta`, or None.
    batch_ops, example_ops: see Source.
  """

  def __init__(self, arrays: Mapping[str, np.ndarray], metas: Sequence[dict] | None = None,
               batch_ops: Sequence[Callable] = (), example_ops: Sequence[Callable] = ()):
    lengths = {len(v) for v in arrays.values()}
    if len(lengths) != 1 or (metas is not None and {len(metas)} != lengths):
      raise UserError(f"arrays of a source differ in length: {sorted(lengths)}")
    self.arrays, self.metas = dict(arrays), metas
    self.batch_ops, self.example_ops = tuple(batch_ops), tuple(example_ops)

  def __len__(self):
    return len(next(iter(self.arrays.values())))

  def read(self, indices):
    return {key: value[indices] for key, value in self.arrays.items()}

  def meta(self, i):
    return {"id": str(i)} if self.metas is None else dict(self.metas[int(i)])


class Subset(Source):
  """Some examples of a source, as a source; `position` in its batches counts the chosen ones."""

  def __init__(self, source: Source, positions: np.ndarray):
    self._source, self._positions = source, positions
    self.example_ops, self.batch_ops = source.example_ops, source.batch_ops
    self.ragged = getattr(source, "ragged", False)

  def __len__(self):
    return len(self._positions)

  def read(self, indices):
    return self._source.read(self._positions[np.asarray(indices)])

  def read_one(self, i):
    return self._source.read_one(int(self._positions[i]))

  def meta(self, i):
    return self._source.meta(self.position(i))

  def position(self, i) -> int:
    """Place of example i in the full source."""
    return int(self._positions[i])


class Plain(Subset):
  """All examples of a source without its ops: no noise, no augmentation."""

  def __init__(self, source: Source):
    super().__init__(source, np.arange(len(source)))
    self.example_ops = self.batch_ops = ()


class Views(Source):
  """Every pair (example, view) of a source, examples slowest: pair p is example p // n, view p % n.

  Its batches hold "view" int32 beside the source's keys; what a view is, the method knows.
  """

  def __init__(self, source: Source, n: int):
    self._source, self._n = source, n
    self.example_ops, self.batch_ops = source.example_ops, source.batch_ops
    self.ragged = source.ragged

  def __len__(self):
    return self._n * len(self._source)

  def read(self, indices):
    found = self._source.read(np.asarray(indices) // self._n)
    return {**found, "view": (np.asarray(indices) % self._n).astype(np.int32)}

  def read_one(self, i):
    return {**self._source.read_one(i // self._n), "view": np.int32(i % self._n)}

  def meta(self, i):
    return self._source.meta(i // self._n)


class DataSet:
  """Named splits of a data set; modules subclass it.

  Attributes:
    name: carries "synthetic" where the data are synthetic.
    synthetic: True for generated data; evaluate writes it into every result.
    splits: names that `split` accepts.
    decided, listing: see below.
  """

  name: str = "unnamed"
  synthetic: bool = False
  splits: tuple[str, ...] = ()
  # Fields of config.data that were found out on opening; they go into the run's config.json.
  decided: Mapping[str, Any] = {}
  # The split that was made, {"file", "patient", "split", "label"} each; goes into <workdir>/splits.csv.
  listing: Sequence[Mapping[str, str]] = ()

  def has_lesions(self, name: str) -> bool:
    """Whether masks of a split mark anything; True where the data set does not know."""
    del name
    return True

  def describe(self) -> dict[str, Any]:
    """JSON-able: counts per split and label, preparation parameters, checksums."""
    return {"name": self.name, "synthetic": self.synthetic,
            "splits": {name: {"examples": len(self.split(name))} for name in self.splits}}

  def train(self) -> Source | dict[str, Source]:
    """Training examples; a dict where the method reads several streams."""
    raise NotImplementedError

  def validation(self) -> Source | dict[str, Source] | None:
    """Examples of the validation loss, or None."""
    return None

  def split(self, name: str) -> Source:
    """Every example that evaluation scores, in its own order.

    Raises:
      ValueError: no such split, with the names that exist.
    """
    raise NotImplementedError

  def fitting(self) -> Source:
    """Normal training images exactly as `split` shows images to the score.

    What `method.finalize` fits on: normalised, cropped and resized as evaluation does it, without
    noise and augmentation, in a fixed order. By default the training examples without their ops;
    a subclass says otherwise where training prepares images differently or reads several streams.
    """
    source = self.train()
    if not isinstance(source, Source) or source.ragged:
      raise UserError(f"the data set {self.name} does not say which normal images a method is "
                      "fitted on (DataSet.fitting)")
    return Plain(source)

  def resident_arrays(self) -> dict[str, np.ndarray]:
    """The whole training source {key: [n, ...]} for the mode that keeps it on the accelerator.

    Ops of the source are not applied: the training step draws its own noise in that mode.
    """
    source = self.train()
    if not isinstance(source, Source) or source.ragged:
      raise UserError("config.data.resident needs one stream of examples of one size")
    return source.read(np.arange(len(source)))


def module(name: str) -> Module:
  """The module that config.data.name names.

  Args:
    name: a module of data_pipelines/datasets; or "package.module:Name" of a DataSet class or of an object
      with the functions of `Module`; or "package.module", a module with them.

  Raises:
    UserError: no such module, with the name that was probably meant and those that exist; code
      outside the package that nobody allowed.
  """
  if "." in name or ":" in name:
    outside.check("config.data.name", name)
  path, _, attribute = (name if "." in name or ":" in name
                        else f"{__package__}.datasets.{name}").partition(":")
  try:
    found: Any = importlib.import_module(path)
  except ModuleNotFoundError as e:
    if path != e.name and not path.startswith(f"{e.name}."):  # a library that the module needs
      raise
    found = None
  if attribute and found:
    found = getattr(found, attribute, None)
    if isinstance(found, type) and not hasattr(found, "build"):
      return Module(name, found, build=found)
  if not (hasattr(found, "build") or hasattr(found, "open")):
    near = difflib.get_close_matches(name, dataset_names(), 1)
    raise UserError(f"config.data.name={name!r} is not a data set; "
                    + (f"did you mean {near[0]}? " if near else "")
                    + f"data_pipelines/datasets has: {', '.join(dataset_names())}; one of your own is "
                    "package.module:Name")
  return Module(name, found)


def open_dataset(data_cfg, seed: int) -> DataSet:
  """The data set that `data_cfg.name` names.

  Raises:
    UserError: no such module; what its `build` finds wrong. FileNotFoundError: a folder is not there.
  """
  return module(data_cfg["name"]).build(data_cfg, seed)


def dataset_names() -> list[str]:
  """Names of all data sets of the package."""
  from data_pipelines import datasets
  return sorted(info.name for info in pkgutil.iter_modules(datasets.__path__)
                if not info.name.startswith("_"))
