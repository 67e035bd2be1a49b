"""Names that changed, old -> new: config.json and checkpoints of older runs are read with the new ones.

New runs write new names only. A line is added here with every change of a stored name, and none is
ever taken away: old workdirs stay readable. Keys are values of config.method.name; methods kept
outside this package are not touched.
"""

from __future__ import annotations

from collections.abc import Mapping
import re
from typing import Any

from medae_jax.core import fields

_LOSSES = {"nnl": "logistic", "least_squared": "least_squares"}

# Fields of config.json.
FIELDS: dict[str, dict[str, str]] = {
    "dpa": {
        "method.growing.stab_steps": "method.growing.stable_steps",
        "method.growing.trns_steps": "method.growing.transition_steps",
        "method.adversarial.n_dis": "method.adversarial.n_critic",
        "method.adversarial.lambd": "method.adversarial.wasserstein_weight",
        "model.dis_widths": "model.critic_widths",
        "optim.lr_dis": "optim.lr_critic"},
    "piad": {
        "method.n_dis": "method.n_critic",
        "method.adv_image.lambd": "method.adv_image.wasserstein_weight",
        "method.adv_latent.lambd": "method.adv_latent.wasserstein_weight"}}

# Values of fields (their new names).
VALUES: dict[str, dict[str, dict[str, str]]] = {
    "dpa": {"method.adversarial.name": _LOSSES},
    "piad": {"method.adv_image.name": _LOSSES, "method.adv_latent.name": _LOSSES,
             "method.policy.name": {"gradnorm": "gradient_norms"}}}

# Networks of State.params and State.stats, optimisers of State.opt.
NETWORKS: dict[str, dict[str, str]] = {"dpa": {"dis": "critic"}}

# First words of the names of stages, "stab_32" -> "stable_32".
STAGES: dict[str, dict[str, str]] = {"dpa": {"stab": "stable", "trns": "transition"}}

# Data sets that name the patients of their files by config.data.grouping. A run without the field
# began when they went by other rules: "legacy" keeps its split, and its images where they are.
GROUPED = ("annotations", "brats", "camelyon", "nih", "paired", "segmentation")
# Fields of config.data that stay those of the run when it goes on with a newer config.
OF_SPLIT = ("grouping", "group_pattern")


# Fields that came later: {field that decides: {its value: {new field: default}}}.
_FILES = ("annotations", "camelyon", "natural", "nih", "paired", "segmentation",
          "synthetic_textures")
_RECONSTRUCTS = {f"method.score.{k}": list(v) if isinstance(v, tuple) else v  # as JSON has it
                 for k, v in fields.RECON_SCORE.items()}
ADDED: dict[str, dict[str, dict[str, Any]]] = {
    "parallel.mode": {mode: {"parallel.reduce": "float32"} for mode in ("pmap", "shard_map")},
    "data.name": {**{name: {"data.window": [0, 0]} for name in _FILES},
                  # Volumes were read with their axes as stored, and their slices resized whole.
                  **{name: {"data.orientation": "", "data.placement": "scan", "data.lesion_values": [],
                            "data.unit": "percentile"}
                     for name in ("brats", "synthetic")},
                  "synthetic_textures": {"data.window": [0, 0], "data.signed": True},
                  # DICOM files of an own folder were images.
                  "own_folder": {"data.lesion_values": [], "data.dicom": "images",
                                 "data.unit": "percentile"}},
    "method.name": {"dpa": _RECONSTRUCTS | {"method.trunk": "vgg19"},
                    "piad": _RECONSTRUCTS | {"method.trunk": "vgg19"},
                    "dae": _RECONSTRUCTS | {"method.score.gaussian": 0.0, "model.norm_kernel": "plain",
                                            "method.score.foreground": True,
                                            "method.score.saturation": 0.0, "method.score.guided": 0,
                                            "method.score.guided_eps": 1e-3, "method.score.guide_channel": 0,
                                            "method.score.test_noise_mirror": 0},
                    "morphaeus": _RECONSTRUCTS},
    "eval.kind": {"restoration": {"predict.identifiers": "derived"},
                  "segmentation": {"predict.slide": fields.SLIDE, "eval.measures": [],
                                   "eval.surface_tolerance": 2.0},
                  "anomaly": {"eval.alpha": 0.05, "eval.choose_score": [], "eval.fit_lesions": "marked",
                              "predict.dicom_seg": "auto", "predict.layout": "files",
                              "predict.slide": fields.SLIDE, "eval.measures": [],
                              "eval.surface_tolerance": 2.0, "eval.trunk": "vgg16", "eval.trunk_weights": "",
                              "eval.trunk_layers": ["r12", "r22", "r33", "r43"]}}}


def config(values: dict[str, Any]) -> dict[str, Any]:
  """config.json's content with new names; also of a run that has them already."""
  for decides, by_value in ADDED.items():
    group, field = decides.split(".")
    word = str((_group(values, (group,)) or {}).get(field)).rpartition(".")[2]
    for path, default in by_value.get(word, {}).items():
      *groups, field = path.split(".")
      found = _group(values, groups)
      if found is not None:
        found.setdefault(field, default)
        if isinstance(default, Mapping) and isinstance(found[field], Mapping):
          found[field] = {**default, **found[field]}
  data = _group(values, ("data",))
  if data is not None and str(data.get("name")).rpartition(".")[2] in GROUPED:
    data.setdefault("grouping", "legacy")
  name = method_of(values)
  for old, new in FIELDS.get(name, {}).items():
    *groups, field = old.split(".")
    group = _group(values, groups)
    if group is not None and field in group:
      group[new.rsplit(".", 1)[-1]] = group.pop(field)
  for path, names in VALUES.get(name, {}).items():
    *groups, field = path.split(".")
    group = _group(values, groups)
    if group is not None and isinstance(group.get(field), str):
      group[field] = names.get(group[field], group[field])
  growing = _group(values, ("method", "growing"))
  if growing is not None and isinstance(growing.get("steps_per_stage"), str):
    growing["steps_per_stage"] = stages_text(name, growing["steps_per_stage"])
  return values


def stage(method: str, name: str) -> str:
  """The new name of a stage."""
  word, mark, rest = name.partition("_")
  return STAGES.get(method, {}).get(word, word) + mark + rest


def first_name(method: str, name: str) -> str:
  """The name that a stage had before all renaming: random streams are hashed from it."""
  word, mark, rest = name.partition("_")
  first = {new: old for old, new in STAGES.get(method, {}).items()}
  return first.get(word, word) + mark + rest


def stages_text(method: str, text: str) -> str:
  """"stab_32:3, trns_32:4" with the new names of stages."""
  return re.sub(r"[A-Za-z]\w*", lambda match: stage(method, match[0]), text)


def meta(method: str, values: dict[str, Any]) -> dict[str, Any]:
  """A checkpoint's meta data with the new names of stages."""
  renamed: dict[str, Any] = {"stage": stage(method, values["stage"])} if "stage" in values else {}
  if "batches" in values:
    renamed["batches"] = {stage(method, k): v for k, v in values["batches"].items()}
  return {**values, **renamed}


def networks(method: str, tree: Mapping[str, Any]) -> dict[str, Any]:
  """{network or optimiser: ...} with new names."""
  names = NETWORKS.get(method, {})
  return {names.get(k, k): v for k, v in tree.items()}


def networks_as_saved(method: str, tree: Mapping[str, Any], saved) -> dict[str, Any]:
  """`tree` with the names that a checkpoint has: the old ones where `saved` names contain them."""
  old = {new: old for old, new in NETWORKS.get(method, {}).items() if old in saved}
  return {old.get(k, k): v for k, v in tree.items()}


def method_of(values: Mapping[str, Any]) -> str:
  """config.method.name of config.json's content; "" where it has none."""
  method = values.get("method")
  return str(method.get("name", "")) if isinstance(method, dict) else ""


def _group(values, groups):
  for name in groups:
    values = values.get(name) if isinstance(values, dict) else None
  return values if isinstance(values, dict) else None
