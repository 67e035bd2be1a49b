"""Every value that a config file sets, against a table that was read through once: no default changes unseen.

config_values.json: {config file: {argument: {field: value}}}. Under "" stand the fields that differ from
configs/common.py and from the data set's own defaults (docs/config_fields.md has those, and its test);
under another argument what it changes; a sweep's parts are compared whole. Where a value is published,
the config's docstring names the source, and tests/parity/test_published_runs.py reads the published files.
Who changes a value on purpose says so here as well: python -m tests.unit.core.test_config_values
"""

import importlib
import itertools
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


def arguments(name):
  """Those that a config file knows, from its own refusal."""
  with pytest.raises(UserError) as refused:
    config_of(name, "?")
  return str(refused.value).rpartition("use: ")[2].split(", ")


def test_every_path_and_fold_that_is_given_is_in_the_config():
  """Also of a labelled folder and of slides, which have no lists; a path of lists is no root."""
  asked = 0
  for name, form in itertools.product(VALUES, ("", "folder", "slides")):
    known = arguments(name)
    if (form and form not in known) or name.startswith(("own_folder", "sweep")):  # some for some methods
      continue
    given = [a for a in ("root", "lists", "vgg", "weights") if a in known]
    given = [a for a in given if (form, a) != ("slides", "lists")]
    text = ",".join(filter(None, [form, *(f"{a}=/x/{a}" for a in given)]))
    found = flat(config_of(name, text).to_dict())
    for a in given:
      fields = [k for k, v in found.items() if v == f"/x/{a}"]
      words = {"vgg": ("vgg", "weights"), "lists": ("lists", "folds")}.get(a, (a, "dir", "path"))
      assert fields and any(w in k for k in fields for w in words), (name, form, a, fields)
      asked += 1
    if "fold" in known and not form and "fold" in found:
      assert found["data.fold"] == -1
  assert asked > 40


@pytest.mark.parametrize("name", ["piad_camelyon16", "piad_cifar10", "piad_nih"])
def test_iterations_of_piad_are_chosen_among_validation_images_of_a_fold_alone(name):
  chosen = ("data.val_from_test", "train.best_metric", "eval.checkpoint")
  of = lambda argument: [flat(config_of(name, argument).to_dict()).get(k) for k in (*chosen, "data.fold")]
  assert of("fold=1") == [True, "val/image_auroc", "best", 1]
  assert of("")[0] is False and of("")[1:] != of("fold=1")[1:]


def test_classes_and_runs_that_there_are_not_are_refused():
  asked = 0
  for name in VALUES:
    known = arguments(name)
    for argument, wrong, last in (("cls", (-1, 10), 9), ("run", (-1, 3), 2)):
      if argument in known and name.startswith(("dpa", "piad", "deep")) and "cxr" not in name:
        config_of(name, f"{argument}={last}")
        for value in wrong:
          with pytest.raises(UserError, match=f"{argument}={value}"):
            config_of(name, f"{argument}={value}")
          asked += 1
  assert asked > 30


def main():
  """Writes the table afresh, of the same arguments; read the difference before you commit it."""
  TABLE.write_text(written({name: table_of(name, [a for a in VALUES[name] if a]) for name in VALUES}),
                   encoding="utf-8")


if __name__ == "__main__":
  main()
