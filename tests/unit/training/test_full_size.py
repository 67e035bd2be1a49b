"""A newcomer's first command: the demo instead of days on synthetic data, and a folder of its own."""

import jax
import pytest

from configs import annotation_removal, dae_brats, dae_nifti
from medae_jax import cli
from medae_jax.core import config as config_lib
from medae_jax.training import full_size


@pytest.mark.parametrize("module", [dae_brats, dae_nifti, annotation_removal])
def test_full_size_on_synthetic_data_without_accelerator_becomes_the_demo(module):
  config = config_lib.override(module.get_config(), {"train.log_every": 7})
  assert full_size.is_accident(config, "cpu") and not full_size.is_accident(config, "gpu")
  assert not full_size.is_accident(config_lib.override(config, {"data.dir": "/mine"}), "cpu")
  assert not full_size.is_accident(module.get_config("demo"), "cpu")
  assert not full_size.is_accident(module.get_config("smoke"), "cpu")
  units = ("steps", "epochs", "examples")
  for unit in units:  # a length in any of them is one
    alone = {f"train.{u}": 10**6 if u == unit else 0 for u in units}
    assert full_size.is_accident(config_lib.override(config, alone), "cpu")
  small = full_size.demo(config, module.get_config, "")
  assert small.variant == "demo" and small.train.log_every == 7
  assert small.train.steps == module.get_config("demo").train.steps < config.train.steps


def test_default_folders():
  assert full_size.default_workdir("configs/dae_brats.py") == "runs/dae_brats"
  assert full_size.default_workdir("/x/configs/dpa_nih.py:exp=pg,run=1") == "runs/dpa_nih_exp_pg_run_1"


class _Flags(dict):
  """Stands for the parsed flags of a command."""

  def __init__(self, full_size):
    super().__init__(config="flag of the config file")
    self.full_size = full_size


def test_the_launcher_trains_the_demo_unless_full_size_is_insisted_on(monkeypatch):
  monkeypatch.setattr(cli.config_flags, "get_config_filename", lambda _: dae_brats.__file__)
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  asked = config_lib.override(dae_brats.get_config(), {"seed": 3})
  monkeypatch.setattr(cli, "FLAGS", _Flags(full_size=False))
  small = cli._affordable(asked)
  assert small.variant == "demo" and small.seed == 3 and small.train.steps < asked.train.steps
  own = config_lib.override(asked, {"data.dir": "/mine"})
  assert cli._affordable(own) is own
  monkeypatch.setattr(cli, "FLAGS", _Flags(full_size=True))
  assert cli._affordable(asked) is asked


def test_the_demo_has_the_arguments_that_were_asked_for(monkeypatch):
  """Of a configured class or ablation: another one would be trained without a word."""
  monkeypatch.setattr(cli.config_flags, "get_config_filename", lambda _: f"{dae_brats.__file__}:exp=a,run=1")
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  monkeypatch.setattr(cli, "FLAGS", _Flags(full_size=False))
  monkeypatch.setattr(full_size, "demo", lambda config, get_config, argument: argument)
  assert cli._affordable(dae_brats.get_config()) == "exp=a,run=1"
