"""Reading what an evaluation wrote for the page: numbers, curves, tables; damage is named in one line."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from medae_jax.core import files
from medae_jax.core.errors import UserError
from medae_jax.metrics import dictionary
from medae_jax.reporting import gallery

_ORDER = ("test", "val")
_REMEDY = gallery.REMEDY


@dataclasses.dataclass(frozen=True)
class Split:
  """One evaluated split.

  Attributes:
    name: "test". result: <split>.json. curves: curves/<split>.json or {}. rows: <split>.csv as dicts of
    text. images: <split>_images.csv likewise. pictures: rows of reporting.gallery.
  """

  name: str
  result: dict[str, Any]
  curves: dict[str, Any]
  rows: list[dict[str, str]]
  images: list[dict[str, str]]
  pictures: list[dict[str, Any]]

  @property
  def title(self) -> str:
    return {"val": "validation"}.get(self.name, self.name)

  @property
  def kind(self) -> str:
    """"restoration", "segmentation" or "anomaly", by the measures."""
    return ("restoration" if "psnr" in self.result else
            "segmentation" if "jaccard" in self.result else "anomaly")

  @property
  def unit(self) -> str:
    """What intervals were drawn over: patients, images, frames or groups of them."""
    if self.curves.get("unit"):
      return str(self.curves["unit"])
    if "n_patients" in self.result and self.result["n_patients"] != self.result.get("n_images"):
      return "patients"
    groups = {r["group"] for r in self.rows if "group" in r}
    return "groups" if groups and len(groups) < len(self.rows) else "images"

  @property
  def groups(self) -> int | None:
    """How many of them there were."""
    if isinstance(self.curves.get("groups"), int):
      return self.curves["groups"]
    named = {r["group"] for r in self.rows if "group" in r}
    return len(named) or self.result.get("n_patients") or None

  def measures(self) -> list[str]:
    """Keys of numbers that this split has, in the order of tables."""
    repeated = dictionary.repeated(self.result)
    return dictionary.in_order(k for k, v in self.result.items() if k not in dictionary.ABOUT
                               and k not in repeated
                               and isinstance(v, (int, float)) and not isinstance(v, bool))


def read(folder: pathlib.Path) -> list[Split]:
  """All splits of an evaluation, test first.

  Raises:
    UserError: a damaged file; the line names it.
  """
  order = lambda p: (_ORDER.index(p.stem) if p.stem in _ORDER else len(_ORDER), p.stem)
  found = []
  for path in sorted(folder.glob("*.json"), key=order):
    curves = folder / "curves" / path.name
    found.append(Split(path.stem, result(path), files.read_json(curves, _REMEDY) if curves.is_file() else {},
                       table(path.with_suffix(".csv")), table(folder / f"{path.stem}_images.csv"),
                       gallery.read(folder, path.stem)))
  return found


def result(path: pathlib.Path) -> dict[str, Any]:
  """evaluation/<split>.json, with the entries that are not plain values of the expected form."""
  found = files.read_json(path, _REMEDY)
  is_number = lambda v: v is None or (isinstance(v, (int, float)) and not isinstance(v, bool))
  pair = lambda v: v is None or (isinstance(v, list) and len(v) == 2 and all(map(is_number, v)))
  forms = {"ci95": pair, "baseline": lambda v: is_number(v) or isinstance(v, str),
           "notes": lambda v: isinstance(v, str), "checkpoint": lambda v: True,
           "model_better_by": lambda v: True}
  for key, form in forms.items():
    value = found.get(key) or {}
    if not isinstance(value, dict) or not all(map(form, value.values())):
      raise UserError(f"{path} is damaged (its entry {key!r}): {_REMEDY}")
  for key in ("pixel_ap", "image_auroc"):  # what the first sentence is about
    if not is_number(found.get(key)):
      raise UserError(f"{path} is damaged (its entry {key!r}): {_REMEDY}")
  return found


def table(path: pathlib.Path) -> list[dict[str, str]]:
  """The rows of a CSV; [] where there is no file. Raises as files.read_csv."""
  return files.read_csv(path, _REMEDY)
