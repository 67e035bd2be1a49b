"""Claims: one holder at a time; dead ones are taken over at once, silent ones elsewhere after a while."""

import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from data_pipelines import claims


def lock(folder, owner, number=0):
  path = folder / f"slide.lock{number}"
  path.write_text(json.dumps(owner) if isinstance(owner, dict) else owner)
  return path


def take(folder, stale=60.0):
  """"" or who holds it; released at once."""
  with claims.claimed(folder, "slide", stale) as holder:
    return holder


def test_the_second_is_told_who_holds_it(tmp_path):
  with claims.claimed(tmp_path, "slide") as holder:
    assert holder == ""
    assert take(tmp_path).endswith(f"process {os.getpid()}")
    with claims.claimed(tmp_path, "slide.2") as other:
      assert other == ""
  assert take(tmp_path) == "" and not list(tmp_path.iterdir())


def test_what_a_killed_process_held_is_free_at_once(tmp_path):
  program = ("import os, signal, sys\nfrom data_pipelines import claims\n"
             "with claims.claimed(sys.argv[1], 'slide'): os.kill(os.getpid(), signal.SIGKILL)")
  assert subprocess.run([sys.executable, "-c", program, str(tmp_path)]).returncode == -9
  assert [p.name for p in tmp_path.iterdir()] == ["slide.lock0"]
  assert take(tmp_path) == "" and not list(tmp_path.iterdir())


@pytest.mark.parametrize("owner", [{"machine": "another", "pid": 1, "started": "5"}, "", "{", "7"])
def test_a_silent_holder_elsewhere_is_waited_for_until_its_claim_is_stale(tmp_path, owner):
  path = lock(tmp_path, owner)
  assert take(tmp_path)
  os.utime(path, (0, time.time() - 50))
  assert take(tmp_path)
  os.utime(path, (0, time.time() - 70))
  assert take(tmp_path) == "" and not list(tmp_path.iterdir())


def test_unless_told_otherwise_ten_minutes_of_silence_are_waited_for(tmp_path):
  path = lock(tmp_path, {"machine": "another", "pid": 1, "started": "5"})
  for age, held in ((540, True), (660, False)):
    os.utime(path, (0, time.time() - age))
    with claims.claimed(tmp_path, "slide") as holder:
      assert bool(holder) == held


def test_a_number_given_to_another_process_is_not_taken_for_the_old_one(tmp_path):
  lock(tmp_path, {**claims.identity(), "started": "1"})
  assert take(tmp_path) == ""


def test_a_holder_that_lives_touches_its_claim(tmp_path):
  with claims.claimed(tmp_path, "slide", stale=0.5):
    time.sleep(0.8)
    assert take(tmp_path, stale=0.5)


def test_of_many_that_find_a_stale_claim_one_gets_it(tmp_path):
  os.utime(lock(tmp_path, {"machine": "another", "pid": 1, "started": "5"}), (0, 0))
  ready, over, got = threading.Barrier(8), threading.Barrier(8), []

  def one():
    ready.wait()
    with claims.claimed(tmp_path, "slide") as holder:
      got.append(holder)
      over.wait()  # nobody lets go before all have asked
  threads = [threading.Thread(target=one) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert got.count("") == 1 and not list(tmp_path.iterdir())


def test_file_systems_without_links(tmp_path, monkeypatch):
  def refuse(*_):
    raise PermissionError(1, "Operation not permitted")
  monkeypatch.setattr(os, "link", refuse)
  with claims.claimed(tmp_path, "slide") as holder:
    assert holder == "" and take(tmp_path)
  assert take(tmp_path) == ""


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_where_a_file_has_no_second_name_its_content_is_written(tmp_path, monkeypatch, code):
  (tmp_path / "ticket").write_text("mine")

  def refused(*_):
    raise OSError(code, os.strerror(code))
  monkeypatch.setattr(os, "link", refused)
  claims._link(tmp_path / "ticket", tmp_path / "lock")
  assert (tmp_path / "lock").read_text() == "mine"
  code = errno.EACCES
  with pytest.raises(PermissionError):
    claims._link(tmp_path / "ticket", tmp_path / "other")
