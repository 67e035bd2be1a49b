"""Numbers and words that stand alone, against a table whose numbers were read through: none changes unseen.

numbers.json: {file: {name: expression}} of constants of modules and classes and defaults of arguments, where
a number is in them: tables by class or layer, limits, seeds of a publication, tolerances. Beside them what
else an argument or field is by default (True, "batch"), and lists of words (what a folder may be called,
choices), long ones as a checksum; these were taken as they stood. Few of them have a test of their own, and
a digit that is exchanged changes results without a word. The table says that something changed, not what is
right: values that papers publish are in test_published_values.py, what configs set is in config_values.json.
Who changes one on purpose says so: python -m tests.unit.house.test_numbers
"""

import ast
import hashlib
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[3]
TABLE = pathlib.Path(__file__).with_name("numbers.json")
FILES = [p for folder in ("medae_jax", "data_pipelines", "configs")
         for p in sorted((ROOT / folder).rglob("*.py"))]
# Pictures and pages: a pixel more or less there is nobody's result.
LEFT_OUT = ("medae_jax/reporting/", "medae_jax/serving/")


_WORD, _LONG = 40, 120  # letters of a word at most, of an expression that is shown
_PLAIN = ("dict", "frozenset", "np.array", "range", "set", "tuple")  # calls that hold what they are given


def is_number(node) -> bool:
  """Whether an expression is made of literals and names, a number among them."""
  parts = list(ast.walk(node))
  if any(isinstance(n, (ast.Lambda, ast.JoinedStr)) or (isinstance(n, ast.Call) and ast.unparse(n.func)
                                                       not in _PLAIN) for n in parts):
    return False  # rules of fields have test_limits.py
  return any(type(n.value) in (int, float) for n in parts if isinstance(n, ast.Constant))


def is_choice(name, node) -> bool:
  """Whether it is what an argument or field is by default, a word or yes or no, or a list of short words."""
  parts = list(ast.walk(node))
  texts = [n.value for n in parts if isinstance(n, ast.Constant) and isinstance(n.value, (bool, str))]
  if not texts or any(isinstance(n, (ast.Lambda, ast.JoinedStr)) or (isinstance(n, ast.Call) and ast.unparse(
      n.func) not in _PLAIN) for n in parts) or any(len(str(t)) > _WORD for t in texts):
    return False  # sentences are for people
  return "(" in name or "." in name or not isinstance(node, ast.Constant)


def shown(node) -> str:
  """The expression, long ones as a checksum."""
  text = ast.unparse(node)
  return text if len(text) <= _LONG or is_number(node) else (
      f"{len(text)} characters, {hashlib.sha256(text.encode()).hexdigest()[:12]}")


def constants(body, prefix=""):
  """(name, expression) of what a module or class assigns, and of defaults of arguments."""
  for node in body:
    if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
      for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        yield prefix + ast.unparse(target), node.value
    elif isinstance(node, ast.ClassDef):
      yield from constants(node.body, f"{prefix}{node.name}.")
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
      named = [*node.args.posonlyargs, *node.args.args]
      given = [*zip(named[len(named) - len(node.args.defaults):], node.args.defaults),
               *zip(node.args.kwonlyargs, node.args.kw_defaults)]
      yield from ((f"{prefix}{node.name}({a.arg})", value) for a, value in given if value is not None)


def table() -> dict[str, dict[str, str]]:
  """What TABLE has to hold."""
  found = {}
  for path in FILES:
    name = path.relative_to(ROOT).as_posix()
    if not name.startswith(LEFT_OUT):
      own = {n: shown(value) for n, value in constants(ast.parse(path.read_text(encoding="utf-8")).body)
             if is_number(value) or (n != "__all__" and is_choice(n, value))}
      found |= {name: own} if own else {}
  return found


def test_numbers_are_those_of_the_table():
  known, there = json.loads(TABLE.read_text(encoding="utf-8")), table()
  differ = []
  for file in sorted({*known, *there}):
    old, new = known.get(file, {}), there.get(file, {})
    differ += [f"{file}: {name} was {old.get(name)}, is {new.get(name)}" for name in sorted({*old, *new})
               if old.get(name) != new.get(name)]
  assert not differ, "meant so? then write the table anew: python -m tests.unit.house.test_numbers"


if __name__ == "__main__":
  TABLE.write_text(json.dumps(table(), indent=1) + "\n", encoding="utf-8")
