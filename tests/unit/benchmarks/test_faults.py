"""The table of faults is refused where it does not fit the code; verdicts are counted by room."""

import dataclasses

from benchmarks.faults import __main__ as command, run, table


def test_a_table_that_does_not_fit_is_named(tmp_path):
  (tmp_path / "a.py").write_text("x = 1\ny = 1\nz = 3\n")
  (tmp_path / "t.py").write_text("")
  good = table.Fault("good", "core", "a.py", "z = 3", "z = 4", ("t.py",))
  assert table.problems([good], tmp_path) == []
  wrong = [dataclasses.replace(good, name="twice", old="= 1"),
           dataclasses.replace(good, name="gone", old="q = 1"),
           dataclasses.replace(good, name="file", file="b.py"),
           dataclasses.replace(good, name="tests", tests=("none.py",)),
           dataclasses.replace(good, name="same", new="z = 3"),
           dataclasses.replace(good, name="syntax", new="z ="), good, good]
  found = "\n".join(table.problems(wrong, tmp_path))
  for words in ("twice: the old text is 2 times", "gone: the old text is 0 times", "b.py does not exist",
                "no such tests: none.py", "same: nothing changes", "syntax: the new text is no Python",
                "good: the name is used 2 times"):
    assert words in found


def test_tables_are_read_with_their_default_tests(tmp_path):
  (tmp_path / "core.toml").write_text("""tests = ["tests/a"]
[[fault]]
name = "n"
file = "f.py"
old = '''a "b"'''
new = '''c'''
[[fault]]
name = "m"
file = "f.py"
old = '''d'''
new = '''e'''
tests = ["tests/b"]
""")
  first, second = table.read(tmp_path)
  assert first == table.Fault("n", "core", "f.py", 'a "b"', "c", ("tests/a",))
  assert second.tests == ("tests/b",) and first.key != dataclasses.replace(first, new="x").key
  assert first.applied('if a "b":') == "if c:"


def test_report_counts_by_room():
  verdicts = [("core", run.CAUGHT), ("core", run.MISSED), ("data", run.CAUGHT)]
  text = command.report([{"name": f"f{i}", "room": room, "verdict": v, "why": "w"}
                         for i, (room, v) in enumerate(verdicts)])
  for line in ("| core | 2 | 1 | 50 % |", "| data | 1 | 1 | 100 % |", "| all | 3 | 2 | 67 % |",
               "missed: f1 (w)"):
    assert line in text
