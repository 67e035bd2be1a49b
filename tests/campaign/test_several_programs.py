"""Several programs at once on one folder of a preparation: the files of one process, bit for bit.

  python -m pytest tests/campaign -m campaign -q -s -k test_several_programs
"""

import subprocess
import sys

import pytest

from tests.campaign import finished, kill
from tests.unit.slides import camelyon_folder

pytestmark = pytest.mark.campaign
_ONE, _TWO = ("--workers=1",), ("--workers=2",)
_BEAM = ("--runner=DirectRunner", "--direct_num_workers=2", "--direct_running_mode=multi_processing")


def _start(source, target, log, *more):
  command = [sys.executable, "-m", "data_pipelines.prepare", "camelyon16", f"--source={source}",
             f"--target={target}", "--border=0", "--per_slide=2", *camelyon_folder.TARGET, *more]
  with open(log, "w", encoding="utf-8") as out:
    return subprocess.Popen(command, cwd=kill.ROOT, stdout=out, stderr=subprocess.STDOUT)


def _all_done(started, folder):
  codes = [p.wait(kill.HANG) for p in started]
  assert not any(codes), "\n".join(p.read_text()[-1500:] for p in sorted(folder.glob("*.log")))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """(source, what one process makes of it)."""
  root = tmp_path_factory.mktemp("several")
  source = camelyon_folder.write(root / "source", normal=4, tumor=3)
  _all_done([_start(source, root / "one", root / "one.log", "--workers=1")], root)
  return source, root / "one"


@pytest.mark.parametrize("ways", [(_ONE, _TWO), (_TWO, _BEAM), (_ONE, _ONE, _ONE, _ONE)])
@pytest.mark.parametrize("repeat", range(3))
def test_several_programs(prepared, tmp_path, ways, repeat):
  if _BEAM in ways:
    pytest.importorskip("apache_beam")
  source, one = prepared
  started = [_start(source, tmp_path / "out", tmp_path / f"{n}.log", *way) for n, way in enumerate(ways)]
  _all_done(started, tmp_path)
  assert not finished.differences(tmp_path / "out", one) and len(finished.names(one)) > 100
  assert not finished.litter(tmp_path / "out") and not list((tmp_path / "out" / "locks").iterdir())
