"""configs/frozen_beside.py: the data of another experiment, and how its images enter the network."""

import json

import pytest

from configs import dae_brats, dpa_nih, frozen_beside, own_folder
from medae_jax.core import config as config_lib
from medae_jax.core.errors import UserError
from medae_jax.reporting.run import page


def test_data_and_range_are_those_of_the_other_config():
  c = frozen_beside.get_config("of=dpa_nih,more=small;root=here,weights=random:3,seed=7")
  assert c.data == dpa_nih.get_config("small,root=here").data
  assert (c.method.low, c.method.high, c.method.bounded, c.method.channels) == (-1, 1, True, ())
  assert c.method.backbone_weights == "random:3" and c.seed == 7 and not c.method.score.foreground


def test_volumes_have_no_upper_end_and_three_of_their_modalities():
  c = frozen_beside.get_config("smoke")
  assert c.data == dae_brats.get_config("smoke").data
  assert (c.method.low, c.method.bounded, c.method.channels) == (0, False, (0, 1, 2))
  assert c.method.score.foreground
  assert frozen_beside.get_config("smoke,channels=1").method.channels == (1,)


def test_a_run_gives_its_split_too(tmp_path):
  config_lib.write_config(own_folder.get_config("dae,smoke"), tmp_path)
  assert frozen_beside.get_config(f"run={tmp_path},smoke").data.split_table == ""
  (tmp_path / "splits.csv").write_text("file,split\n")
  c = frozen_beside.get_config(f"run={tmp_path},smoke")
  assert c.data.name == "own_folder" and c.data.split_table == str(tmp_path / "splits.csv")


@pytest.mark.parametrize(("arg", "text"), [("of=noisy_skin,smoke", "beside anomaly"), ("of=none", "none.py"),
                                           ("smoke,channels=a", "0\\+1\\+2")])
def test_what_cannot_be_is_one_line(arg, text):
  with pytest.raises(UserError, match=text):
    frozen_beside.get_config(arg)


def test_the_report_says_what_a_choice_stands_on():
  about = {"image_auroc": {"taps=a": 0.7, "taps=c": 0.6, "taps=b": 0.912}, "chosen": "taps=b", "abnormal": 60,
           "normal": 40}
  said = page._fitted({"score": {"taps": "b"}, "score_fit": about})
  assert said["compared"] == [("taps=b", 0.912), ("taps=a", 0.7), ("taps=c", 0.6)]
  assert (said["abnormal"], said["normal"]) == (60, 40) and said["score"] == json.dumps({"taps": "b"})


def test_another_experiment_may_be_named_as_its_file_is():
  plain, file = (frozen_beside.get_config(f"of={name},smoke") for name in ("dpa_nih", "dpa_nih.py"))
  assert plain.to_dict() == file.to_dict()
