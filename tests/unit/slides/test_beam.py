"""prepare camelyon16 by Apache Beam with two workers: the files of one process; skipped without Beam."""

import pytest

from data_pipelines.errors import UserError
from data_pipelines.slides.camelyon import beam, run, settings as fields
from tests.unit.slides import camelyon_folder


def prepare(source, target, pool=None):
  settings = fields.resolve(fields.Settings(str(source), str(target), border=0, per_slide=1, stain=False))
  run.prepare(settings, count=1, pool=pool)
  return {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}


def test_two_beam_workers_write_what_one_process_writes(tmp_path):
  pytest.importorskip("apache_beam")
  source = camelyon_folder.write(tmp_path / "source", test=False)
  workers = ["--runner=DirectRunner", "--direct_num_workers=2", "--direct_running_mode=multi_processing"]
  found = prepare(source, tmp_path / "beam", beam.pool(tmp_path / "beam", workers))
  assert found == prepare(source, tmp_path / "one") and len([f for f in found if f.startswith("x40/")]) == 2


def test_without_beam_it_says_what_to_install(tmp_path, monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "apache_beam", None)
  with pytest.raises(UserError, match=r"medae-jax\[beam\]"):
    beam.pool(tmp_path, [])
