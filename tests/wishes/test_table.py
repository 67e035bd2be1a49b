"""Every wish has a test that exists and is not skipped unsaid."""

import ast
import functools
import re

import pytest

from tests.contract.cases import ROOT
from tests.wishes import table

SKIPS = re.compile(r"importorskip|skipif|pytest\.skip\(")


@functools.cache
def functions(file):
  """{name: source} of a file of tests, decorators with them; "": what stands outside functions."""
  text = (ROOT / file).read_text(encoding="utf-8")
  lines, found, rest = text.splitlines(), {}, text
  for node in ast.parse(text).body:
    if isinstance(node, ast.FunctionDef):
      first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
      found[node.name] = "\n".join(lines[first - 1:node.end_lineno])
      rest = rest.replace(found[node.name], "")
  return {**found, "": rest}


def test_there_are_54_and_each_once(capsys):
  assert [w.number for w in table.WISHES] == list(range(1, 55))
  with capsys.disabled():
    print(f"\n{table.summary()}")


@pytest.mark.parametrize("wish", table.WISHES, ids=lambda w: str(w.number))
def test_its_tests_exist_and_run(wish):
  assert wish.tests and wish.wish and wish.answer
  for node in wish.tests:
    file, _, name = node.partition("::")
    source = functions(file)[name]
    assert "mark.campaign" not in source + functions(file)[""], f"{node} runs by hand alone"
    if SKIPS.search(source):  # TensorFlow is installed; what else may be missing must be said
      assert "tensorflow" in source or (wish.needs and wish.needs in source), f"{node} may be skipped"
