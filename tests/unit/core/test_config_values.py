"""Every value that a config file sets, against a table that was read through once: no default changes unseen.

config_values.json: {config file: {argument: {field: value}}}. Under "" stand the fields that differ from
configs/common.py and from the data set's own defaults (docs/config_fields.md has those, and its test);
under another argument what it changes; a sweep's parts are compared whole. Where a value is published,
the config's docstring names the source, and tests/parity/test_published_runs.py reads the published files.
Who changes a value on purpose says so here as well: python -m tests.unit.core.test_config_values
"""

import importlib
import json
import pathlib

import pytest

from configs import common
from data_pipelines import dataset as datasets
from data_pipelines.errors import UserError

TABLE = pathlib.Path(__file__).with_name("config_values.json")
VALUES = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
ROOT = pathlib.Path(__file__).resolve().parents[3]


def flat(tree, prefix=""):
  """{dotted field: value as JSON has it} of nested dicts."""
  found = {}
  for key, value in tree.items():
    if isinstance(value, dict) and value:
      found.update(flat(value, f"{prefix}{key}."))
    else:
      found[f"{prefix}{key}"] = json.loads(json.dumps(value))
  return found


def config_of(name, argument):
  """All fields of the config."""
  return importlib.import_module(f"configs.{name}").get_config(argument or None)


def set_by(name, argument):
  """{field: value} of those that differ from the base and from the defaults of the data set."""
  config = config_of(name, argument).to_dict()
  shared = flat(common.base(config["eval"]["kind"]).to_dict())
  shared |= flat(datasets.module(config["data"]["name"]).defaults().to_dict(), "data.")
  return {k: v for k, v in flat(config).items() if k not in shared or shared[k] != v}


def table_of(name, arguments):
  """What VALUES has to hold for the file; "(default)": what the argument sets back."""
  found = {"": set_by(name, "")}
  for argument in arguments:
    other = set_by(name, argument)
    found[argument] = {k: v for k, v in other.items() if found[""].get(k, ...) != v}
    found[argument] |= {k: "(default)" for k in found[""] if k not in other}
  return found


def written(tables) -> str:
  """The table as JSON, a line a field."""
  names = []
  for name, table in tables.items():
    arguments = [f" {json.dumps(argument)}: {{" + ",".join(
        f"\n  {json.dumps(k)}: {json.dumps(v)}" for k, v in fields.items()) + "}"
                 for argument, fields in table.items()]
    names.append(f"{json.dumps(name)}: {{\n" + ",\n".join(arguments) + "}")
  return "{" + ",\n".join(names) + "}\n"


@pytest.mark.parametrize("name", VALUES)
def test_values_are_those_of_the_table(name):
  ours = table_of(name, [a for a in VALUES[name] if a])
  for argument, wanted in VALUES[name].items():
    changed = {k: (ours[argument].get(k), v) for k, v in wanted.items() if ours[argument].get(k, ...) != v}
    more = {k: v for k, v in ours[argument].items() if k not in wanted}
    assert not changed and not more, f"{name}:{argument}"


def test_the_table_has_every_config_file():
  named = {p.stem for p in (ROOT / "configs").glob("*.py")
           if "def get_config(arg" in p.read_text(encoding="utf-8")}
  assert set(VALUES) == named - {"from_workdir"}  # which has the values of a run


def test_a_seed_that_is_given_is_that_of_the_run():
  """0 as well, which is no sign that none was given."""
  taken = set()
  for name in VALUES:
    try:
      assert config_of(name, "seed=0")["seed"] == 0, name
    except UserError as error:
      assert "config argument 'seed' is unknown" in str(error), name
      continue
    taken.add(name)
  assert len(taken) >= 23


def main():
  """Writes the table afresh, of the same arguments; read the difference before you commit it."""
  TABLE.write_text(written({name: table_of(name, [a for a in VALUES[name] if a]) for name in VALUES}),
                   encoding="utf-8")


if __name__ == "__main__":
  main()
