"""A second column of answers in labels.csv that says otherwise than `label` is said."""

import numpy as np
from PIL import Image
import pytest

from data_pipelines.datasets import nih
from data_pipelines.one_class import folders


def told(folder, caplog, column, words, *, splits="train train test test", labels="normal normal normal mass",
         **fields):
  """What the log says of a table with this column; every row's side is that of `label`."""
  rows = [f"file,split,label,{column}"]
  for i, (split, label, word) in enumerate(zip(splits.split(), labels.split(), words, strict=True)):
    Image.fromarray(np.full((8, 8), 10 * i + 5, np.uint8)).save(folder / f"{i}.png")
    rows.append(f"{i}.png,{split},{label},{word}")
  (folder / "labels.csv").write_text("\n".join(rows))
  items = folders.read_labels(folder, {**nih.defaults(), "grouping": "file", **fields})
  count = {side: sum(len(found) for (split, own), found in items.items() if split and own == side)
           for side in folders.SIDES}
  used = [label for split, label in zip(splits.split(), labels.split()) if split != "unused"]
  assert count == {"normal": used.count("normal"), "anomaly": len(used) - used.count("normal")}
  return caplog.text


@pytest.mark.parametrize("column", ["diagnosis", "Finding Labels", "class", "label_2", "DX", "Ground Truth",
                                    "Pathology"])
def test_another_answer_is_said(tmp_path, caplog, column):
  text = told(tmp_path, caplog, column, ("normal", "Pneumonia", "No finding", "mass"))
  assert (f"1 of 4 images are normal by `label` and Pneumonia by column {column.lower()!r}, the first in "
          "line 3: `label` is followed") in text


@pytest.mark.parametrize("column, words", [
    ("diagnosis", ("normal", "", "healthy", "1")), ("finding", ("a", "b", "c", "d")),
    ("sex", ("0", "1", "0", "1")), ("subtype", ("", "", "", "1")), ("visit", ("1", "1", "0", "0"))])
def test_the_same_answer_other_words_and_other_columns_are_not(tmp_path, caplog, column, words):
  assert "`label` is followed" not in told(tmp_path, caplog, column, words)


def test_unused_rows_do_not_count_and_declared_words_do(tmp_path, caplog):
  options = dict(splits="train train unused test", anomaly_words=("odd",))
  (tmp_path / "a").mkdir()
  assert "`label` is" not in told(tmp_path / "a", caplog, "target", ("0", "0", "1", "1"), **options)
  (tmp_path / "b").mkdir()
  text = told(tmp_path / "b", caplog, "target", ("odd", "odd", "0", "1"), **options)
  assert "2 of 3 images are normal by `label` and odd by column 'target', the first in line 2" in text
