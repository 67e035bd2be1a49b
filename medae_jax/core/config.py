"""Reading, changing, comparing and writing configs: <workdir>/config.json and --config.FIELD=VALUE."""

from __future__ import annotations

from collections.abc import Mapping
import json
import os
import pathlib
import traceback
from typing import Any

import ml_collections
import numpy as np

from medae_jax.core import fields, upgrade
from medae_jax.core.errors import UserError
from medae_jax.core.files import read_json, write_csv, write_json

SPLIT = "splits.csv"  # the split that a data set made for a run
SWEEP = "sweep.json"  # lies in the folder of a sweep


def override(config, values: Mapping[str, Any] | None, *, typed: bool = False):
  """A locked copy of a ConfigDict with {"group.field": value} replaced.

  Args:
    typed: True = a value must be of its field's type, as on the command line.

  Raises:
    UserError: a field or group that does not exist, with those there are; a group in place of a field; a
      value of another type; no mapping of texts.
  """
  if not isinstance(values or {}, Mapping) or not all(isinstance(name, str) for name in values or {}):
    raise UserError(f"fields are changed by {{\"group.field\": value}}, not by {type(values).__name__} "
                    f"{str(values)[:60]!r}")
  config = config.copy_and_resolve_references()
  with config.unlocked():
    for name, value in (values or {}).items():
      *groups, field = name.split(".")
      node = _below(config, groups, name)
      _below(node, [field], name)
      if hasattr(node[field], "keys"):
        raise UserError(f"config.{name} is a group of fields: change one of them, such as config.{name}."
                        f"{next(iter(node[field]), 'FIELD')}")
      value = _plain(value)
      if typed or (isinstance(value, bool) and isinstance(node[field], float)):  # True would be 1.0
        _check_type(name, node[field], value)
      with node.ignore_type():  # config.json has lists where the config file had tuples
        node[field] = tuple(value) if typed and isinstance(value, list) else value
  return config.lock()


def _below(node, parts, name):
  """What lies at `parts` below a group; UserError, with the whole `name`, where one of them is not there."""
  for part in parts:
    if not hasattr(node, "keys") or part not in node:
      there = ", ".join(node) if hasattr(node, "keys") else "no field below it"
      raise UserError(f"config.{name}: there is no {part!r}; there is {there}")
    node = node[part]
  return node


def _plain(value):
  """Paths as text, NumPy's numbers as Python's: what notebooks hand over."""
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  if type(value) in (list, tuple):  # a named tuple is built otherwise
    return type(value)(map(_plain, value))
  return value.item() if isinstance(value, (np.number, np.bool_)) else value


def _check_type(name, old, value):
  number = lambda v: isinstance(v, (int, float)) and not isinstance(v, bool)
  alike = old is None or (isinstance(value, type(old)) and isinstance(value, bool) == isinstance(old, bool))
  alike |= isinstance(old, (tuple, list)) and isinstance(value, (tuple, list))
  if not (alike or (isinstance(old, float) and number(value))):
    raise UserError(f"config.{name}={value!r} is of type {type(value).__name__}, not "
                    f"{type(old).__name__} as {old!r}")


def missing_field(error: Exception) -> str:
  """A line for users where a field was read that a config does not have; "" for any other exception."""
  frames = traceback.extract_tb(error.__traceback__)
  if not isinstance(error, (AttributeError, KeyError)) or not frames or (
      os.path.basename(frames[-1].filename) != "config_dict.py"):
    return ""
  name = str(error).strip("\"'\\").split("\n")[0].strip("\"'\\")
  return (f"the config has no field {name!r}, which this mode or method reads: config.json was edited, or "
          "is of another version")


def read_config(workdir) -> ml_collections.ConfigDict:
  """The resolved, locked config of a workdir.

  Raises:
    FileNotFoundError: no config.json there. UserError: it is damaged.
  """
  path = pathlib.Path(workdir) / "config.json"
  if not path.is_file():
    raise FileNotFoundError(f"{path} does not exist: {workdir} is not the folder of a training run.")
  value = upgrade.config(read_json(path, "restore it from a copy"))
  for group, defaults in fields.YOUNGER.items():
    value.setdefault(group, dict(defaults))
  for group, defaults in fields.YOUNGER_FIELDS.items():
    if isinstance(value.get(group), dict):
      value[group] = {**defaults, **value[group]}
  try:
    return ml_collections.ConfigDict(_with_tuples(value)).lock()
  except (ValueError, TypeError, AttributeError) as e:  # names that no field can have
    raise UserError(f"{path} is damaged ({e}): restore it from a copy") from e


def _with_tuples(value):
  """JSON has no tuples, but only tuples can be changed on the command line."""
  if isinstance(value, dict):
    return {k: _with_tuples(v) for k, v in value.items()}
  return tuple(_with_tuples(v) for v in value) if isinstance(value, list) else value


def check_workdir(config, workdir) -> None:
  """Raises UserError where `workdir` holds another experiment's run, or is the folder of a sweep."""
  path = pathlib.Path(workdir) / "config.json"
  if not path.exists():
    if path.with_name(SWEEP).is_file():
      raise UserError(f"{workdir} is the folder of a sweep, whose table and report know its own runs alone: "
                      "choose another --workdir")
    return
  old = upgrade.config(read_json(path, "restore it from a copy, or choose a new --workdir"))
  new = json.loads(json.dumps(config.to_dict()))
  for group in ("method", "model"):
    if old.get(group) != new[group]:
      pair = {group: old.get(group)}, {group: new[group]}
      here, there = differences(*pair), differences(*reversed(pair))
      names = (*here, *there, group)
      name = "method.name" if "method.name" in names else names[0]
      both = f"{json.dumps(there.get(name))} there, {json.dumps(here.get(name))} here"
      where = both if name in here and name in there else f"only {'there' if name in there else 'here'}"
      raise UserError(f"{workdir} holds a run with another config.{name}: {where}; "
                      "give the run's value to go on, or choose a new --workdir.")


def write_config(config, workdir) -> None:
  """Writes <workdir>/config.json; refuses another experiment's folder."""
  check_workdir(config, workdir)
  import jax  # read_config, which the launcher calls first, does without it
  if jax.process_index() == 0:
    value = json.loads(json.dumps(config.to_dict()))
    if value.get("data", {}).get("split_table") == str(pathlib.Path(workdir) / SPLIT):
      value["data"]["split_table"] = ""  # the folder may be moved: its own split is looked up
    write_json(pathlib.Path(workdir) / "config.json", value)


def with_split(config, workdir):
  """The config with the split that the run in `workdir` made, where its data set makes splits and the
  data are still those of the run; else the config as it is."""
  path = pathlib.Path(workdir) / SPLIT
  if config.data.get("split_table", None) != "" or not path.is_file():
    return config
  return override(config, {"data.split_table": str(path)})


def write_split(listing, workdir) -> None:
  """Writes <workdir>/splits.csv unless it is there, or there is nothing to write."""
  import jax
  path = pathlib.Path(workdir) / SPLIT
  if listing and not path.is_file() and jax.process_index() == 0:
    write_csv(path, listing)


def flat(config) -> dict[str, Any]:
  """{"train.steps": 10, ...}."""
  return dict(_walk("", config))


def _walk(prefix, config):
  for key, value in config.items():
    if hasattr(value, "items"):
      yield from _walk(f"{prefix}{key}.", value)
    else:
      yield prefix + key, value


def differences(base, config) -> dict[str, Any]:
  """Fields of `config` that differ from `base`, without group sweep: the command line's changes.

  Args:
    base, config: ConfigDicts, or dicts of groups.
  """
  old = flat(base)
  return {k: v for k, v in flat(config).items()
          if not k.startswith("sweep.") and (k not in old or old[k] != v)}
