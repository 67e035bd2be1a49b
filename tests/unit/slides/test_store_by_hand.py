"""What a preparation keeps: keys, records, settings, second names, what the dead left; counts and parts."""

import os

import numpy as np
import pytest

from data_pipelines import claims, machine, store as stores, when_read, workers
from data_pipelines.errors import UserError


@pytest.fixture(name="store")
def a_store(tmp_path):
  found = stores.Store(tmp_path / "target")
  found.folder.mkdir()
  return found


def test_a_key_depends_on_everything_that_it_is_given(tmp_path):
  a, b = tmp_path / "a", tmp_path / "b"
  for path in (a, b):
    path.write_bytes(b"same")
    os.utime(path, ns=(10**9, 10**9))
  make = lambda step="s", files=(a,), before=("x", "y"), extra=("z",): stores.key(step, files, before, extra)
  first = make()
  others = [make("t"), make(files=(b,)), make(files=(a, b)), make(before=("y", "x")), make(before=("x",)),
            make(extra=()), make(before=("x",), extra=("y", "z"))]
  os.utime(a, ns=(10**9, 10**9 + 1))
  others.append(make())
  a.write_bytes(b"other")
  os.utime(a, ns=(10**9, 10**9))
  others.append(make())
  assert len({first, *others}) == 10
  a.write_bytes(b"same")
  os.utime(a, ns=(10**9, 10**9))
  assert make() == first
  with pytest.raises(UserError, match="gone cannot be read"):
    make(files=(tmp_path / "gone",))
  assert stores.digest(["a", "b"]) != stores.digest(["b", "a"]) and stores.digest([]) == ""


def test_a_record_counts_with_its_key_and_its_files_alone(store):
  file = store.write("x/a.bin", b"1234")
  assert file["bytes"] == 4 and store.record("s", "cut") is None
  store.write_record("s", "cut", {"key": "k", "files": [file]})
  assert store.record("s", "cut", "k")["files"] == [file] == store.record("s", "cut")["files"]
  assert store.record("s", "cut", "other") is None and store.record("s", "mask", "k") is None
  for other in (b"123", b"12345"):
    (store.folder / "x/a.bin").write_bytes(other)
    assert store.record("s", "cut", "k") is None
  (store.folder / "x/a.bin").unlink()
  assert store.record("s", "cut", "k") is None


def test_a_target_belongs_to_the_settings_of_its_first_record(store):
  store.settle({"seed": 1, "side": 2})
  store.settle({"seed": 2, "side": 2})  # nothing had been made
  store.write_record("s", "cut", {"key": "k", "files": []})
  store.settle({"seed": 2, "side": 2})
  with pytest.raises(UserError, match=r"prepared with another seed \(2, now 3\); choose another --target"):
    store.settle({"seed": 3, "side": 2})
  with pytest.raises(UserError, match=r"another more \(None, now 1\)"):
    store.settle({"seed": 2, "side": 2, "more": 1})


def test_a_second_name_leaves_nothing_behind(store):
  file = store.write("a.bin", b"1234")
  for _ in range(2):  # the second time both are names of one file already
    assert store.link(file, "x40/b.bin") == {**file, "file": "x40/b.bin"}
  assert (store.folder / "x40/b.bin").read_bytes() == b"1234"
  assert not [p for p in store.folder.rglob("*") if p.is_file() and p.name not in ("a.bin", "b.bin")]
  store.close()
  assert sorted(p.name for p in store.folder.iterdir()) == ["a.bin", "x40"]


def test_what_others_are_writing_outlasts_the_end_of_this_process(store):
  other = store.folder / ".unfinished" / "other"
  other.mkdir(parents=True)
  (other / "a.png").touch()
  store.write("a.bin", b"1234")
  store.close()
  assert (other / "a.png").is_file()


def test_what_dead_processes_left_is_taken_away_and_what_others_write_is_not(store):
  mine = claims.owner_name()
  dead = "-".join([mine.partition("-")[0], str(2**22 + 5), "1", "abc"])
  elsewhere = "-".join(["0" * 12, str(2**22 + 5), "1", "abc"])
  for name in (mine, dead, elsewhere):
    (store.folder / ".unfinished" / name).mkdir(parents=True)
  store.clear()
  assert {p.name for p in (store.folder / ".unfinished").iterdir()} == {mine, elsewhere}


def test_processes_are_as_many_as_cores_and_memory_allow(monkeypatch):
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
  monkeypatch.setattr(machine, "free_memory", lambda: 10e9)
  assert [workers.default_count(b) for b in (1e9, 3e9, 5e9, 11e9)] == [6, 3, 2, 1]


def test_parts_are_made_once_and_several_at_a_time():
  made = []
  def parts(number):
    return when_read.Parts(lambda: (made.append(number), (np.full((2, 3), number), np.arange(2)))[1])
  all_parts = [parts(k) for k in range(3)]
  arrays = [when_read.WhenRead(p, 0, (2, 3), int) for p in all_parts]
  assert len(arrays[0]) == 2 and not made
  when_read.make_all(arrays[:1])  # one alone is made by reading it
  assert not made and arrays[1][1].tolist() == [1, 1, 1] and made == [1]
  when_read.make_all([*arrays, *arrays, np.zeros(3)])
  assert sorted(made) == [0, 1, 2] and np.asarray(arrays[2]).sum() == 12
  assert when_read.WhenRead(all_parts[0], 1, (2,), int)[1] == 1 and len(made) == 3


@pytest.mark.parametrize("name", ["manifest.csv", "report.json"])
def test_tables_of_others_are_not_written_over(store, name):
  """--target named the folder of somebody's own table."""
  (store.folder / name).write_text("mine")
  with pytest.raises(UserError, match=f"{name} is there, and no preparation has written it"):
    store.settle({"seed": 1})
  (store.folder / "settings.json").write_text("{")  # damaged; the target is one of a preparation
  store.settle({"seed": 1})
