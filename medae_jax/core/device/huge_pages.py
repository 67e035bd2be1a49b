"""Memory in pages of 2 MiB on Linux CPUs.

XLA takes its scratch memory (1 GB and more) anew in every step, and Linux clears and looks it up in pages of
4 KiB; in huge pages a training step takes 4 to 10 % less time (docs/performance_trials.md). The C library
reads its setting when the process starts, so that the command starts itself once more, with the same process
number.
"""

from __future__ import annotations

from collections.abc import Mapping
import contextlib
import os
import pathlib
import platform
import sys

_VARIABLE, _SETTING = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"  # 1: asks Linux for huge pages
_OFFERED = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
_ACCELERATORS = ("/dev/nvidiactl", "/dev/kfd", "/dev/accel0", "/dev/vfio/0")  # there the memory is another's
_COMMANDS = ("launch.py", "medae", "medae-jax")


def restart(argv: list[str], original: list[str]) -> None:
  """Starts the command again with huge pages where that helps; otherwise, and the second time, returns.

  Args:
    argv: sys.argv. original: sys.orig_argv. Another program that runs this one within itself stays.
  """
  started_here = os.path.basename(argv[0]) in _COMMANDS and argv[0] in original
  if not (started_here and wanted(os.environ)):
    return
  os.environ[_VARIABLE] = setting(os.environ)
  with contextlib.suppress(OSError):  # slower, no more
    os.execv(sys.executable, [sys.executable, *original[1:]])


def wanted(environment: Mapping[str, str]) -> bool:
  """Whether programs must ask for huge pages here, may, and have not; never beside an accelerator."""
  if sys.platform != "linux" or not _new_enough(platform.libc_ver()):
    return False
  if _SETTING in environment.get(_VARIABLE, ""):
    return False
  if environment.get("JAX_PLATFORMS") != "cpu" and any(map(os.path.exists, _ACCELERATORS)):
    return False
  try:
    return "[madvise]" in _OFFERED.read_text()  # [always]: all have them; [never]: none
  except OSError:
    return False


def setting(environment: Mapping[str, str]) -> str:
  """The variable with the setting behind what the user set."""
  return ":".join(filter(None, (environment.get(_VARIABLE), f"{_SETTING}=1")))


def _new_enough(libc: tuple[str, str]) -> bool:
  """Whether it is a glibc that knows the setting: 2.35 and later."""
  name, version = libc
  return name == "glibc" and tuple(int(n) for n in version.split(".")[:2] if n.isdigit()) >= (2, 35)
