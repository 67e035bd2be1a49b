"""What a run is, read from its config alone: data set and normal class, and the trunk its scores rest on."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

# Arguments of a sweep that name the data, not the method.
OF_DATA = ("cls", "view", "run", "fold")


def data_of(config: Mapping[str, Any]) -> tuple[str, str]:
  """(data set, class): ("cifar10", "3"), ("nih AP", ""), ("patches of FOLDER", "")."""
  data = config["data"]
  name, get = data["name"], data.get
  if name == "natural":
    return get("dataset", name), str(get("normal_class", ""))
  if get("layout", "") == "folder":
    things = {"nih": "radiographs", "camelyon": "patches"}.get(name, name)
    return f"{things} of {pathlib.Path(get('root', '')).name}", ""
  if name == "nih":
    return f"nih {get('view', '')}".strip(), ""
  root = get("root", "") or get("path", "")
  plain = {"camelyon": "camelyon16"}.get(name, name)
  return (f"{plain}, {pathlib.Path(root).name}" if root and plain == name else plain), ""


def trunk_of(config: Mapping[str, Any]) -> str:
  """The network with weights of others that training or score look through; "" where there is none."""
  method = config["method"]
  if isinstance(method.get("backbone"), str) and isinstance(method.get("backbone_weights"), str):
    return _named(method["backbone"], method["backbone_weights"], ())
  if not isinstance(method.get("vgg_weights"), str) or not _looks_through(method):
    return ""
  return _named(method.get("trunk", "") or "vgg19", method["vgg_weights"], method.get("vgg_widths", ()))


def _looks_through(method) -> bool:
  """Whether a term of the training loss or of the score is perceptual, or the images' features are."""
  score = method.get("score") or {}
  loss = method.get("loss", "") or ""
  terms = f"{loss} {score.get('loss', '') or loss}"
  return "perceptual" in terms


def _named(network: str, weights: str, widths) -> str:
  """"vgg19, random, 16-32-64-128-128" or "vgg16, vgg16.npz"."""
  if weights.startswith("random"):
    narrow = tuple(widths) not in ((), (64, 128, 256, 512, 512))
    return f"{network}, random" + (f", {'-'.join(map(str, widths))}" if narrow else "")
  return f"{network}, {pathlib.Path(weights).name or 'weights not named'}"


def method_of(config: Mapping[str, Any], labels: Mapping[str, Any], cell: Mapping[str, Any]) -> str:
  """"dpa wo_pg", "dpa, loss=l1", "piad": the label of a row.

  Args:
    labels: of the sweep: model, exp, variant (small, demo). cell: its arguments.
  """
  name = labels.get("model") or config["method"]["name"]
  grown = (config["method"].get("growing") or {}).get("initial_res", 0)
  exp = labels.get("exp", "") or ("pg" if grown and not labels else "")
  name = " ".join(filter(None, [name, exp, labels.get("variant", "") or config.get("variant", "") or ""]))
  loss = config["method"].get("loss", "") or ""
  if not labels and isinstance(loss, str) and loss not in ("", "relative_perceptual_L1"):
    cell = {"loss": loss, **cell}  # a run by itself: its config says what a sweep's arguments would
  more = [f"{k}={v}" for k, v in cell.items() if k not in OF_DATA]
  return ", ".join([name, *more])
