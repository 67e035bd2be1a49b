"""The table of benchmarks/noisy_annotation_table.py: means, spreads and paired differences."""

import pytest

from benchmarks import noisy_annotation_table as table


def row(arm, seed, dice):
  return {"arm": arm, "seed": seed, "dice": dice, "dice_clean_threshold": dice + 0.1,
          "dice_val_threshold": dice + 0.2}


def test_differences_are_paired_by_seed():
  text = table.table([row("all", 0, 0.30), row("pixel reweight", 0, 0.50), row("all", 1, 0.40),
                      row("pixel reweight", 1, 0.64), row("pixel reweight", 2, 0.60)])
  head, rule, first, second = text.splitlines()
  assert head.count("|") == rule.count("|") == first.count("|") == second.count("|")
  cells = [c.strip() for c in second.split("|")[1:-1]]
  assert cells[:4] == ["pixel reweight", "3", "0.580 ± 0.072", "+0.220 ± 0.028"]
  assert cells[4] == ""  # no run of fine-tuning
  assert first.split("|")[4].strip() == ""  # not against itself


@pytest.mark.parametrize("arm", list(table.ARMS))
def test_every_arm_is_a_config(arm):
  words, changes = table.ARMS[arm]
  config = table.noisy_skin.get_config(f"small,{words},steps=8").copy_and_resolve_references()
  config.update_from_flattened_dict(changes)  # raises where a field does not exist
  assert config.train.steps == 8 and " " not in table.folder(arm)
