"""Limits of all numbers of the tables of rules, against lists that were read through once.

A rule that loses a limit is then on another list; a new field is put on its lists on purpose.
"""

import importlib
import json
import math
import pathlib

from medae_jax.core import checks
from medae_jax.core.trained_on import changed
from medae_jax.models import conv_ae

TASKS = ("anomaly", "segmentation", "restoration")
NEGATIVE = {"model.slope", "method.rec_log_std", "predict.threshold"}
POSITIVE = {
    *("train.batch_size", "train.accum", "train.steps_per_call", "train.log_every", "train.eval_batch_size"),
    *("train.keep", "eval.batch_size", "eval.quantile", "eval.alpha", "eval.threshold_beta", "bench.repeats"),
    *("bench.seconds", "method.policy.every", "method.policy.history", "method.track_size"),
    *("method.track_window", "method.vgg_stats_steps", "method.n_critic", "method.loss_limit"),
    *("method.beta_epochs", "method.capacity_steps", "method.ssim_window", "method.window"),
    *("method.score.test_noise_res", "method.score.guided_eps", "method.score.window", "model.channels"),
    *("model.latent_res", "model.max_res", "model.res", "model.levels", "model.squeeze", "model.hidden"),
    *("model.kernel", "model.depth", "model.width", "model.latent_dim", "optim.half_period"),
    "predict.slide.least", "predict.batch_size"}
SHARES = {  # a threshold is any number, and one of probabilities is a share
    *("method.finetune_share", "method.policy.smooth", "method.uniform_mix", "method.ema"),
    *("method.score.alpha", "optim.plateau_factor", "optim.b1", "optim.b2", "optim.momentum"),
    *("predict.slide.tissue", "predict.slide.top", "eval.quantile", "eval.alpha", "predict.threshold")}
BELOW_ONE = {"method.ema", "optim.b1", "optim.b2", "optim.momentum", "predict.threshold"}


def rules():
  """(field, whether it takes a value) of every rule of one number."""
  tables = [checks.RULES, checks.SHARED, *(importlib.import_module(f"medae_jax.tasks.{t}.fields").RULES
                                           for t in TASKS)]
  for name, rule in ((n, r) for table in tables for n, r in table.items()):
    takes = lambda value, rule=rule: not rule(value)
    if (takes(3) or takes(0.5)) and not takes("x") and not takes(None):
      yield name, takes


def test_a_shared_rule_is_of_a_field_that_a_config_has():
  """A rule under a name that nobody has checks nothing, and such a field may not change without harm."""
  names: set[str] = set()
  def walk(tree):
    for name, below in tree.items():
      names.add(name)
      if isinstance(below, dict):
        walk(below)
  walk(json.loads((pathlib.Path(__file__).parent / "config_values.json").read_text()))
  assert set(checks.SHARED) - names == {  # made together with those of the critics' losses
      f"method.adv_{side}.{name}" for side in ("image", "latent") for name in ("weight", "n_critic")}
  assert {*changed._SAME_NETWORK, *(f"method.score.{name}" for name in changed._SAME_SCORE)} <= names


def test_words_of_a_rule_are_those_that_the_network_knows():
  rule = checks.SHARED["model.upsampling"]
  assert not [word for word in conv_ae.UPSAMPLING if rule(word)] and rule("nearest")


def test_limits_are_those_of_the_lists():
  numbers = list(rules())
  assert {n for n, takes in numbers if takes(-1) or takes(-0.5) or takes(-1e-6)} == NEGATIVE
  assert {n for n, takes in numbers if not takes(0)} == POSITIVE
  assert {n for n, takes in numbers if takes(0.5) and not takes(1.001)} == SHARES
  assert {n for n, takes in numbers if takes(0.5) and not takes(1)} == BELOW_ONE
  assert not [n for n, takes in numbers if takes(math.nan) or takes(math.inf) or takes(True) or takes(False)]
  assert not [n for n, takes in numbers if takes(2**64) and not takes(0.5)]  # whole numbers of 64 bits
  assert len({n for n, _ in numbers}) > 130
