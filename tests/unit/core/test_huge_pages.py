"""When the command starts itself again with huge pages, and how."""

import os
import sys

import pytest

from medae_jax.core.device import huge_pages


@pytest.fixture
def offered(monkeypatch, tmp_path):
  """A machine where programs must ask for huge pages: Linux, glibc, no accelerator."""
  file = tmp_path / "enabled"
  file.write_text("always [madvise] never\n")
  monkeypatch.setattr(huge_pages, "_OFFERED", file)
  monkeypatch.setattr(huge_pages, "_ACCELERATORS", (str(tmp_path / "gpu"),))
  monkeypatch.setattr(sys, "platform", "linux")
  monkeypatch.setattr(huge_pages.platform, "libc_ver", lambda: ("glibc", "2.36"))
  return file


def test_asks_where_programs_must_and_only_once(offered):
  assert huge_pages.wanted({})
  assert huge_pages.wanted({"GLIBC_TUNABLES": "glibc.malloc.check=3"})
  assert not huge_pages.wanted({"GLIBC_TUNABLES": huge_pages.setting({})})
  assert not huge_pages.wanted({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"})  # the user's word


@pytest.mark.parametrize("text", ["[always] madvise never", "always madvise [never]", None])
def test_linux_gives_them_to_all_or_none(offered, text):
  offered.unlink() if text is None else offered.write_text(text)
  assert not huge_pages.wanted({})


@pytest.mark.parametrize("libc, new", [(("glibc", "2.35"), True), (("glibc", "3.0"), True),
                                       (("glibc", "2.34"), False), (("", ""), False),
                                       (("musl", "2.40"), False)])
def test_c_libraries_that_know_the_setting(offered, monkeypatch, libc, new):
  monkeypatch.setattr(huge_pages.platform, "libc_ver", lambda: libc)
  assert huge_pages.wanted({}) is new


def test_not_beside_an_accelerator_unless_it_is_left_alone(offered, tmp_path):
  (tmp_path / "gpu").touch()
  assert not huge_pages.wanted({})
  assert huge_pages.wanted({"JAX_PLATFORMS": "cpu"})


def test_other_systems_are_left_alone(offered, monkeypatch):
  monkeypatch.setattr(sys, "platform", "darwin")
  assert not huge_pages.wanted({})


def test_what_the_user_set_stays():
  assert huge_pages.setting({}) == "glibc.malloc.hugetlb=1"
  assert huge_pages.setting({"GLIBC_TUNABLES": "a=1"}) == "a=1:glibc.malloc.hugetlb=1"


@pytest.mark.parametrize("argv, original, again", [
    (["launch.py", "--mode=list"], ["python", "-X", "dev", "launch.py", "--mode=list"],
     ["-X", "dev", "launch.py", "--mode=list"]),
    (["/opt/bin/medae", "--help"], ["python3", "/opt/bin/medae", "--help"], ["/opt/bin/medae", "--help"]),
    (["launch.py", "--mode=list"], ["python", "harness.py"], None),  # another program runs it within itself
    (["harness.py"], ["python", "harness.py"], None)])
def test_the_same_command_with_the_same_python(offered, monkeypatch, argv, original, again):
  started = []
  monkeypatch.setattr(os, "execv", lambda *call: started.append(call))
  monkeypatch.setattr(os, "environ", {})
  huge_pages.restart(argv, original)
  assert started == ([] if again is None else [(sys.executable, [sys.executable, *again])])
  assert os.environ == ({} if again is None else {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"})


def test_goes_on_where_it_cannot_be_started_again(offered, monkeypatch):
  def refuse(*call):
    raise OSError("no memory")
  monkeypatch.setattr(os, "execv", refuse)
  monkeypatch.setattr(os, "environ", {})
  huge_pages.restart(["launch.py"], ["python", "launch.py"])
