"""Whose data an evaluation is of: the run's own, whatever the spelling of their folder, or others'."""

from medae_jax.tasks import external
from tests.unit import fake_run


def test_the_runs_own_folder_has_many_spellings(tmp_path, monkeypatch):
  (tmp_path / "mine").mkdir()
  (tmp_path / "link").symlink_to("mine")
  monkeypatch.chdir(tmp_path)
  run = tmp_path / "run"
  fake_run.files.write_json(run / "config.json", fake_run.config(dir="mine", manifest="labels.csv").to_dict())
  for own in ("mine", "./mine/", "link", str(tmp_path / "mine")):
    assert external.folder(run, {"data.dir": own, "data.labels": False}) is None
  one, two = (external.folder(run, {"data.dir": d}) for d in ("other", "there/other"))
  assert one.parent == two.parent == run / "external" and one != two
  assert one.name[:6] == two.name[:6] == "other_"
  assert external.folder(run, {"data.manifest": "b.csv"})  # where predict.force insists
