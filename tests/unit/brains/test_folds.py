"""Folds for a cross-validation of brains: by person and site, test patients unseen."""

import collections

import pytest

from data_pipelines.brains import fields, files, folds, prepare
from data_pipelines.brains.scan_folders import ScanFiles
from data_pipelines.datasets import own_folder
from data_pipelines.errors import UserError
from data_pipelines.intake import splits


def found(n=12, test=3):
  scans = [ScanFiles(f"p{i:02}", "val" if i % 4 == 0 else "train", ("f",), None, f"p{i:02}",
                     "A" if i < 7 else "B" if i < 10 else "") for i in range(n)]
  scans.append(ScanFiles("p00_again", "train", ("g",), None, "p00", "A"))
  scans += [ScanFiles(f"t{i}", "test", ("h",), None, f"t{i}") for i in range(test)]
  return files.Found(scans, {}, "column")


def test_every_person_is_tested_on_once_and_those_of_test_never():
  tested = collections.Counter()
  for k in range(3):
    part = folds.regroup(found(), 3, k)
    where = collections.defaultdict(set)
    for scan in part.scans:
      where[scan.split].add(scan.group)
    assert set(where) == {"train", "val", "test"} and not where["test"] & where["val"]
    assert not where["train"] & (where["val"] | where["test"])
    assert not any(s.patient.startswith("t") for s in part.scans) and f"fold {k} of 3" in part.split_rule
    assert {s.split for s in part.scans if s.group == "p00"} in ({"train"}, {"val"}, {"test"})
    tested.update(where["test"])
  assert tested == collections.Counter({f"p{i:02}": 1 for i in range(12)})


def test_the_fold_after_the_tested_one_chooses():
  test = [{s.group for s in folds.regroup(found(), 4, k).scans if s.split == "test"} for k in range(4)]
  val = [{s.group for s in folds.regroup(found(), 4, k).scans if s.split == "val"} for k in range(4)]
  assert val == test[1:] + test[:1]


def test_sites_stay_together_where_they_fit():
  sites = {**{f"a{i}": "A" for i in range(3)}, **{f"b{i}": "B" for i in range(6)}, "c": "", "d": "", "e": ""}
  where = splits.deal(sites, 3)
  assert sorted(collections.Counter(where.values()).values()) == [4, 4, 4]
  assert len({where[f"a{i}"] for i in range(3)}) == 1 and len({where[f"b{i}"] for i in range(6)}) == 3
  assert where == splits.deal(dict(reversed(sites.items())), 3)


def test_first_folds_have_one_more_where_sizes_differ():
  """Seven of no site in three folds have room 3, 2, 2: each goes where most is left, the first of equals."""
  where = splits.deal({f"p{i}": "" for i in range(7)}, 3)
  assert where == dict(zip([f"p{i}" for i in range(7)], (0, 0, 1, 2, 0, 1, 2)))


def test_a_whole_site_goes_into_one_fold():
  where = splits.deal({**{f"a{i}": "A" for i in range(4)}, **{f"b{i}": "B" for i in range(4)},
                       **{f"c{i}": "C" for i in range(4)}}, 3)
  assert all(len({where[f"{s}{i}"] for i in range(4)}) == 1 for s in "abc")


@pytest.mark.parametrize("changed", [{"folds": 2}, {"folds": 3, "fold": 3}, {"folds": 3, "tfds_dir": "x"},
                                     {"fold": 2}])  # of no folds: the splits stayed as they are
def test_wrong_folds_are_refused(changed):
  with pytest.raises(UserError, match="config.data.folds"):
    fields.resolve({**fields.defaults(), **changed})


def test_too_few_patients():
  with pytest.raises(UserError, match="there are 12 patients"):
    folds.regroup(found(), 13, 0)


@pytest.mark.parametrize("count, fold, regrouped", [
    (3, 0, [(3, 0)]), (3, 2, [(3, 2)]), (0, 0, []), (0, 1, [])])
def test_scans_are_regrouped_where_there_are_folds_whichever_it_is(count, fold, regrouped, monkeypatch):
  """And their patients by the pattern of the config."""
  asked, rules = [], []
  monkeypatch.setattr(prepare.files, "find_scans", lambda *args: rules.append(args))
  monkeypatch.setattr(prepare.folds, "regroup", lambda scans, *args: asked.append(args))
  monkeypatch.setattr(prepare, "folder_of", lambda cfg: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    prepare.prepare_set({"dir": "d", "modalities": ("flair",), "group_pattern": "(x)", "grouping": "patient",
                         "folds": count, "fold": fold})
  assert asked == regrouped and rules == [("d", ("flair",), "(x)", "patient")]


def test_ones_own_folder_has_no_folds():
  """A traceback (tfds_dir) said so."""
  with pytest.raises(UserError, match="config.data.folds=3: one's own folder is split by val_share"):
    own_folder.resolve({"name": "own_folder", "folds": 3})
