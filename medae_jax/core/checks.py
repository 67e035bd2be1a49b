"""Ranges of the config fields that every run has: said before data are opened or anything is compiled.

A rule is a function value -> what is allowed, "" where the value is fine. Tasks have tables of their
own (tasks/<kind>/fields.py); what only one method reads is checked by the method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import math
import numbers
from typing import Any

from medae_jax.core.errors import UserError, shown
from medae_jax.core.fields import FORMATS

Rule = Callable[[Any], str]


# ------------------------------------------------------------------------------------------- rules
def whole(low: int, high: int | None = None) -> Rule:
  """A whole number from `low` to `high`."""
  def rule(value):
    most = math.inf if high is None else high
    fits = isinstance(value, numbers.Integral) and not isinstance(value, bool) and low <= int(value) <= most
    return "" if fits else f"a whole number from {low}" + (f" to {high}" if high is not None else "")
  return rule


def number(low: float = -math.inf, high: float = math.inf, *, above: bool = False,
           below: bool = False) -> Rule:
  """A finite number from `low` to `high`; `above`, `below`: without the end itself."""
  def rule(value):
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value):
      given = float(value)
      if (given > low if above else given >= low) and (given < high if below else given <= high):
        return ""
    ends = [f"{'above' if above else 'from'} {low:g}"] if low > -math.inf else []
    ends += [f"{'below' if below else 'up to'} {high:g}"] if high < math.inf else []
    return " ".join(["a finite number", *ends])
  return rule


def choice(*allowed) -> Rule:
  """One of `allowed`."""
  def rule(value):
    if any(value == a and isinstance(value, type(a)) for a in allowed):
      return ""
    return "one of " + ", ".join(repr(a) for a in allowed)
  return rule


def optional(rule: Rule) -> Rule:
  """None, or what `rule` allows."""
  return lambda value: "" if value is None else rule(value)


def text(value) -> str:
  """A string."""
  return "" if isinstance(value, str) else "text"


def flag(value) -> str:
  """True or False."""
  return "" if isinstance(value, bool) else "True or False"


def names(*allowed: str) -> Rule:
  """A tuple of at least one string, none of them twice, each of `allowed` where given."""
  def rule(value):
    fits = isinstance(value, (tuple, list)) and value and len({*map(str, value)}) == len(value) and all(
        isinstance(v, str) and (not allowed or v in allowed) for v in value)
    return "" if fits else "one or more names, each once" + (f", of {', '.join(allowed)}" if allowed else "")
  return rule


def group(value) -> str:
  """A group of fields."""
  return "" if hasattr(value, "keys") else "a group of fields"


def weights(value) -> str:
  """(), or numbers that are not negative."""
  fits = isinstance(value, (tuple, list)) and not any(number(0)(v) for v in value)
  return "" if fits else "numbers from 0, one a channel, or ()"


def odd(value) -> str:
  """An odd whole number."""
  return "" if not whole(1)(value) and value % 2 else "an odd whole number"


def odd_or_zero(value) -> str:
  """The side of a filter with a middle, 0 = no filter."""
  none = value == 0 and not whole(0)(value)
  return "" if none or not odd(value) else "an odd whole number, or 0 for none"


def several(rule: Rule, least: int = 0) -> Rule:
  """A tuple of at least `least` values that `rule` allows."""
  def of_all(value):
    if not isinstance(value, (tuple, list)) or len(value) < least:
      return f"{least} or more values in parentheses" if least else "values in parentheses"
    return next((f"values in parentheses, each {said}" for said in map(rule, value) if said), "")
  return of_all


def sides(value) -> str:
  """(), a whole number of pixels, or a pair of them."""
  values = value if isinstance(value, (tuple, list)) else (value,)
  fits = len(values) <= 2 and not any(whole(0, 65536)(v) for v in values) and (all(values) or not any(values))
  return "" if fits else "a number of pixels or (rows, columns), up to 65536"


# ------------------------------------------------------------------------------------------ tables
_MISSING = object()
_MOST = 2**31 - 1  # steps are counted in 32 bits
RULES: dict[str, Rule] = {
    "seed": whole(0, _MOST),
    "seeds": several(whole(0, _MOST)),
    "train.steps": whole(0, _MOST),
    "train.epochs": number(0),
    "train.examples": whole(0, _MOST),
    "train.eval_every_epochs": number(0),
    "train.save_every_epochs": number(0),
    "train.batch_size": whole(1, _MOST),
    "train.accum": whole(1, _MOST),
    "train.steps_per_call": whole(1, _MOST),
    "train.log_every": whole(1, _MOST),
    "train.eval_every": whole(0, _MOST),
    "train.save_every": whole(0, _MOST),
    "train.eval_batch_size": whole(1, _MOST),
    "train.eval_batches": whole(0, _MOST),
    "train.keep": whole(1, _MOST),
    "train.best_metric": text,
    "train.best_mode": choice("min", "max"), "train.trackers": several(choice("mlflow", "wandb")),
    "train.early_stop": whole(0, _MOST),
    "train.early_delta": number(0),
    "train.init_from": text,
    "train.random_streams": choice("named", "legacy"),
    "method.score": group,
    "optim": group,
    "eval.kind": text,
    "eval.splits": names(),
    "eval.batch_size": whole(1, _MOST),
    "eval.checkpoint": choice("best", "last"),
    "eval.bootstrap": whole(0, 1_000_000),
    **dict.fromkeys(("predict.input", "predict.output"), text),
    "predict.force": flag,
    "parallel.mode": choice("pmap", "shard_map"),
    "parallel.reduce": choice("float32", "bfloat16"),
    "bench.repeats": whole(1, _MOST),
    "bench.seconds": number(0, 3600, above=True),
    "bench.stage": text,
    "export.formats": names(*FORMATS),
    "export.image_size": sides,
}
_WIDTHS = several(whole(1, 65536))
_CRITIC: dict[str, Rule] = {
    "name": choice("wasserstein", "logistic", "least_squares"),
    "reg_type": choice("real", "fake", "real_fake"),
    **dict.fromkeys(("weight", "wasserstein_weight", "gradient_penalty", "norm_penalty", "reg_alpha",
                     "target_gamma"), number(0)),
    "n_critic": whole(0, _MOST)}
# Fields of the methods of this package; those kept outside it may mean something else.
SHARED: dict[str, Rule] = {
    **{f"method.{term}.{name}": rule for term in ("adversarial", "adv_image", "adv_latent")
       for name, rule in _CRITIC.items()},
    **dict.fromkeys(("method.absolute", "method.normalize", "method.relative", "method.smooth_pg",
                     "method.cache_features", "method.parity", "method.growing.antialias",
                     "model.bilinear", "model.full_skip", "model.allow_long_widths",
                     "model.normalize_latents", "model.use_wscale", "optim.amsgrad"), flag),
    **dict.fromkeys(("method.layers", "method.loss", "method.baseline", "method.meta", "method.normalise",
                     "method.trunk", "method.vgg_weights", "method.vgg_stats", "method.growing.batch_sizes",
                     "method.growing.steps_per_stage", "method.policy.name", "method.policy.average",
                     "method.policy.measure", "method.score.layers", "method.score.loss", "model.head",
                     "model.init", "model.kind", "model.network", "model.norm", "model.pad",
                     "model.pool", "model.sides", "model.upsample", "model.variant", "optim.name",
                     "optim.schedule"), text),
    **dict.fromkeys(("method.alpha", "method.beta", "method.mark_weight", "method.mse_weight",
                     "method.ssim_weight", "method.clean_weight", "method.clip", "method.finetune_lr",
                     "method.policy.weight_dec", "method.policy.weight_enc", "optim.final", "optim.factor",
                     "optim.lr_critic", "optim.lr_critic_image", "optim.lr_critic_latent"), number(0)),
    **dict.fromkeys(("method.finetune_share", "method.policy.smooth", "method.uniform_mix"), number(0, 1)),
    **dict.fromkeys(("method.policy.every", "method.policy.history", "method.track_size",
                     "method.track_window", "method.vgg_stats_steps", "method.n_critic", "model.channels",
                     "model.latent_res", "model.max_res", "model.res"), whole(1, _MOST)),
    **dict.fromkeys(("method.growing.initial_res", "method.growing.stable_steps",
                     "method.growing.transition_steps", "method.track"), whole(0, _MOST)),
    **dict.fromkeys(("method.vgg_widths", "model.enc_widths", "model.dec_widths", "model.critic_widths",
                     "model.enc", "model.dec", "model.critic_image", "model.critic_latent"), _WIDTHS),
    **dict.fromkeys(("model.widths", "model.strides"), several(whole(1, 65536), 1)),
    **dict.fromkeys(("method.vgg_dtype", "method.meta_dtype"), choice("float32", "bfloat16")),
    "method.ema": number(0, 1, below=True),
    "method.loss_limit": number(0, above=True),
    "model.mean": several(number()),
    "model.std": several(number(0, above=True)),
    "optim.boundaries": several(whole(0)),
    "method.loss_over": choice("all", "foreground"),
    "method.smoothness": choice("gradient_l2", "gradient_l1", "bending"),
    "method.score.of": choice("recon", "prior"),
    "method.beta_epochs": number(0, above=True),
    "method.delta": number(0),
    "method.warmup_epochs": whole(0, _MOST),
    "model.act": choice("swish", "relu", "leaky_relu"),
    "model.slope": number(),
    "model.upsampling": choice("resize", "transposed"),
    "model.both": flag,
    "model.levels": whole(1, 16),
    "model.integration_steps": whole(0, 32),
    **dict.fromkeys(("method.sample", "method.zero_pass", "method.score.sample",
                     "model.skip_by_identity"), flag),
    "method.kl": choice("exact", "published"), "method.regulariser": choice("capacity", "beta"),
    **dict.fromkeys(("method.beta_rec", "method.beta_kl", "method.beta_neg", "method.gamma",
                     "method.kl_weight", "method.max_capacity", "method.rec_weight", "method.latent_weight"),
                    number(0)),
    "method.capacity_steps": number(0, above=True),
    "method.validation_calls": whole(0, _MOST),
    "method.rec_log_std": number(), "optim.plateau_patience": whole(0, _MOST),
    "model.latent": whole(0, 65536), **dict.fromkeys(("model.squeeze", "model.hidden"), whole(1, 65536)),
    "optim.plateau_factor": number(0, 1),
    **dict.fromkeys(("method.ssim_window", "method.window", "model.kernel"), odd),
    "method.score.erosion": whole(0, 999), "method.score.median": odd_or_zero,
    "method.score.gaussian": number(0, 100),
    "method.score.guided": whole(0, 500), "method.score.guided_eps": number(0, above=True),
    "method.score.saturation": number(0), "method.score.guide_channel": whole(0, 4095),
    "method.score.image_score": choice("mean", "max", "top1", "foreground_mean"),
    **dict.fromkeys(("method.score.weights_positive", "method.score.weights_negative"), weights),
    "method.score.test_noise_mirror": whole(0, 2), "method.score.test_noise_draws": whole(0, 10000),
    "method.score.test_noise_res": whole(1, 65536), "method.score.test_noise_std": number(0),
    **dict.fromkeys(("method.score.kind", "method.score.trunk", "method.score.trunk_weights",
                     "method.score.trunk_layers"), text),
    **dict.fromkeys(("method.score.offer", "method.score.fit", "method.score.foreground"), flag),
    "method.score.alpha": number(0, 1),
    "method.score.window": odd,
    "method.score.trunk_widths": _WIDTHS,
    "model.dtype": choice("float32", "bfloat16"),
    "model.precision": choice("", "default", "high", "highest"),
    "model.depth": whole(1, 12),
    "model.wf": whole(0, 14),
    "model.width": whole(1, 8192),
    "model.latent_dim": whole(1, 65536),
    "model.remat": flag, "model.norm_kernel": choice("plain", "pallas", "measured"),
    "optim.lr": number(0),
    "optim.b1": number(0, 1, below=True),
    "optim.b2": number(0, 1, below=True),
    "optim.eps": number(0),
    "optim.weight_decay": number(0),
    "optim.clip": number(0),
    "optim.momentum": number(0, 1, below=True),
    "optim.warmup": whole(0, _MOST),
    "optim.half_period": number(0, above=True),
    "optim.epoch_steps": whole(0, _MOST),
}
_OPTIONAL = ("seeds", "optim", "method.score", "train.early_stop", "train.early_delta",
             "train.random_streams", "train.epochs", "train.examples", "train.eval_every_epochs",
             "train.save_every_epochs", "bench.", "export.", "predict.force")  # younger than the rest
_GROUPS = ("method", "model", "data", "train", "eval", "predict", "parallel")


def check(config) -> None:
  """Refuses a config that no mode could use.

  Raises:
    UserError: a group or field is missing or of another type, or a value is out of its range.
  """
  for group in _GROUPS:
    if not hasattr(config.get(group, None), "keys"):
      raise UserError(f"config.{group} is missing: it must be a group of fields")
  for group in ("method", "data"):
    if text(config[group].get("name", None)):
      raise UserError(f"config.{group}.name is missing: it must be text")
  apply(config, RULES, optional=_OPTIONAL)
  size, accum = config.train.get("batch_size", 0), config.train.get("accum", 1)
  if accum > 1 and size % accum:
    raise UserError(f"config.train.accum={accum} does not divide config.train.batch_size={size}")
  if ":" not in config.method.name:
    apply(config, SHARED, optional=tuple(SHARED))


def apply(config, rules: Mapping[str, Rule], optional: tuple[str, ...] = ()) -> None:
  """Checks the fields of a table {"group.field": rule}.

  Args:
    optional: names, or beginnings of names, that a config may lack.

  Raises:
    UserError: the first field that is missing or does not fit, with what is allowed.
  """
  for name, rule in rules.items():
    node: Any = config
    for part in name.split("."):
      node = node[part] if hasattr(node, "keys") and part in node else _MISSING
    if node is _MISSING and optional and name.startswith(optional):
      continue
    if node is _MISSING or node is None:
      raise UserError(f"config.{name} is missing")
    allowed = rule(node)
    if allowed:
      raise UserError(f"config.{name}={shown(node)}: it must be {allowed}")
