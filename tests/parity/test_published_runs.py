"""Every published run of the benchmark: the sweep's config has the values of its file (612 of them).

Every key of a file is compared or stands in EXCEPTED. Of a list of widths with more than the network has
blocks, the ones in use are compared. parity=1 keeps PIAD's NIH runs as they were published (section 7.2 of
the benchmark protocol).
"""

import json
import re

import pytest

from configs import sweep_benchmark
from configs.fields import benchmark
from medae_jax.core import checks, method as method_lib
from medae_jax.losses import perceptual
from medae_jax.methods import dpa
from medae_jax.models import dpa_nets
from medae_jax.training.plan import Plan
from tests.golden_cases import golden_files
from tests.parity.dpa_golden import LOSSES, OPTIONS

EXCEPTED = "|".join((  # keys that say nothing about the result, with the reason
    r".*\.(image_root|split|cache_data)",  # where images lie; which lists: tests of the folds
    r"test_batch_size|log_iter|image_sample_iter",  # of scoring and logging
    r"early_stop\w*|val_iter|val_dataset(\..*)?",  # switched off in the final files by val_iter=10**6
    r"(stab|trns)_iter|batch_size|initial_image_res|loss_weights\.image_rec_loss"))  # others stand above them


@pytest.fixture(scope="module")
def published():
  found = {}
  for path in golden_files("protocol", "final_configs*.json"):
    found.update(json.loads(path.read_text()))
  return found


@pytest.mark.parametrize("model", benchmark.MODELS)
@pytest.mark.parametrize("data", benchmark.DATASETS)
def test_configs_are_the_published_ones(published, model, data):
  wanted = {key: entry for key, entry in published.items() if key.startswith(f"{model}/{data}/")}
  plan = Plan(sweep_benchmark.get_config(
      f"method={model},data={data},exp=all,ablation=1,parity=1,vgg=x.pth"), "w")
  seen = set()
  for trial in plan.trials():
    labels, cell = dict(trial.labels), dict(trial.cell)
    key, cls = f"{model}/{data}/{labels['exp']}", str(cell.get(benchmark.ARGUMENT[data], "healthy"))
    if key not in wanted:  # vectors of fewer cases
      continue
    entry, config = wanted[key], plan.config(trial)
    assert config.seed == entry["random_seed_by_class_and_run"][cls][cell["run"]], trial.name
    reference = Read({**entry["common"], **entry["per_class"][cls]})
    COMPARE[model](config, reference, data, trial.name)
    _same_images(config, reference, data, trial.name)
    assert [k for k in reference if k not in reference.seen and not re.fullmatch(EXCEPTED, k)] == []
    seen.add((key, cls, cell["run"]))
  assert seen == {(key, cls, run) for key, entry in wanted.items()
                  for cls, seeds in entry["random_seed_by_class_and_run"].items()
                  for run in range(len(seeds))}


def test_what_has_no_published_config_is_listed():
  everything = benchmark.launches()
  assert len(everything) == 624 and sum(e.published for e in everything) == 516
  assert sum(e.published for e in benchmark.launches(ablation=True)) == 612
  plan = sweep_benchmark.get_config("method=all,data=all").sweep
  assert len(plan.unpublished) == 108 and "dpa/svhn/pg/class_3/run_1" in plan.unpublished
  assert "piad/cifar10/with_cv/class_10/run_0" in plan.unpublished


@pytest.mark.parametrize("model", sweep_benchmark.METHODS)
@pytest.mark.parametrize("data", benchmark.DATASETS)
def test_every_setting_of_a_search_is_a_config(model, data):
  """Of one class: fields that exist, values in range, all different; a fold and a final run of each."""
  cls = str(benchmark.CLASSES[data][-1])
  plan = Plan(sweep_benchmark.get_config(f"method={model},data={data},search=1,cls={cls},vgg=x.pth"), "w")
  settings = plan.parts[0].settings
  assert len(plan.trials()) == 3 * len(settings)
  seen = set()
  for trial in plan.trials()[::3]:
    config = plan.config(trial)
    checks.check(config)
    assert config.data.fold == 0
    seen.add(str(config.to_dict()))
  assert len(seen) == len(settings)


# ------------------------------------------------------------------------------------ the fields
class Read(dict):
  """A file's values, and which of them were asked for."""

  def __init__(self, values):
    super().__init__(values)
    self.seen = set()

  def under(self, start):
    """{rest of the key: value} of the keys that begin so."""
    return {k[len(start):]: self[k] for k in self if k.startswith(start)}

  def __getitem__(self, key):
    self.seen.add(key)
    return super().__getitem__(key)

  def get(self, key, default=None):
    self.seen.add(key)
    return super().get(key, default)


def _same_images(c, ref, data, what):
  """Data set and transforms of training and test images."""
  for where in ("train_dataset", "test_datasets.normal", "test_datasets.anomaly"):
    name = c.data.get("dataset", c.data.name)
    assert ref[f"{where}.dataset_type"] == {"camelyon": "camelyon16"}.get(name, name) == data, what
    start = f"{where}.transform_kwargs."
    theirs = {"to_grayscale": False, "equalize_hist": False, **ref.under(start)}
    ours = dict(c.data)
    if where != "train_dataset" and c.data.get("equalize_hist_test") is not None:
      ours["equalize_hist"] = c.data.equalize_hist_test
    assert {k: ours.get(k, False) for k in theirs} == theirs, what


def _dpa(c, want, data, what):
  del data
  res, latent_res = want["max_image_res"], want["latent_res"]
  f = 4 if latent_res == 1 else latent_res
  n = (res // f).bit_length()
  assert (c.model.max_res, c.model.latent_res, c.model.latent_dim) == (
      res, latent_res, want["latent_dim"]), what
  assert list(c.model.enc_widths) == want["enc.kwargs.inner_dims"][-n:], what
  assert list(c.model.enc_widths)[::-1] == want["dec.kwargs.inner_dims"][:n], what
  assert c.optim.lr == want["adam_kwargs.lr"] and c.data.channels == want["image_dim"], what
  method = dpa.Method(c)
  stages = method_lib.stages_of(method)
  assert stages[0].name == f"stable_{want['initial_image_res']}", what
  groups = 1 + want.get("n_dis", 0)
  for stage in stages:
    kind, r = stage.name.split("_")
    kind = {"stable": "stab", "transition": "trns"}[kind]  # as the published files say
    assert stage.data["batch_size"] == groups * want[f"batch_sizes.{r}"], what
    assert stage.steps == want.get(f"iters_per_res.{r}.{kind}", want[f"{kind}_iter"]), what
  _dpa_loss(c, method, want, what, [int(s.name.split("_")[1]) for s in stages])
  assert want["enc.type"] == want["dec.type"] == c.model.kind, what
  if scored := want.under("test_image_rec_loss."):
    trained = {k[len(prefix):]: v for k, v in want.items()
               if k.startswith(prefix := "image_rec_loss.loss_kwargs.loss_1.")}
    assert scored == {k: v for k, v in trained.items() if k != "loss_weight"}, what
    assert (c.method.score.loss, c.method.score.layers) == (scored["loss_type"], ""), what
  weight = want.get("loss_weights.image_adv_loss", 0)
  assert c.method.adversarial.weight == weight, what
  if weight:
    assert (want["ddis.type"], want["image_adv_loss.loss_type"]) == (
        c.model.kind, c.method.adversarial.name), what
    assert list(c.model.critic_widths or c.model.enc_widths) == (
        want["ddis.kwargs.inner_dims"][-(res // 4).bit_length():]), what
    for field, published in (("wasserstein_weight", "lambd"),
                             *[(k, k) for k in ("gradient_penalty", "norm_penalty")]):
      assert c.method.adversarial[field] == want[f"image_adv_loss.loss_kwargs.{published}"], what


def _dpa_loss(c, method, want, what, resolutions):
  terms = {t.name: t for t in method.perceptual.terms}
  loss = want["image_rec_loss.loss_type"]
  prefix = "image_rec_loss.loss_kwargs."
  if loss == "compose":
    assert (want[prefix + "loss_1.loss_weight"], want[prefix + "loss_2.loss_type"]) == (1, "l1"), what
    assert not want[prefix + "loss_2.loss_kwargs"], what
    assert terms["l1"].weight == pytest.approx(want[prefix + "loss_2.loss_weight"]), what
    prefix, loss = prefix + "loss_1.loss_kwargs.", want[prefix + "loss_1.loss_type"]
  if loss == "l1":
    assert list(terms) == ["l1"] and not want["image_rec_loss.loss_kwargs"], what
    return
  assert loss == "relative_perceptual_L1" and terms["perceptual"].relative, what
  assert c.method.smooth_pg == want[prefix + "use_smooth_pg"], what
  for r in set(resolutions):
    start = f"{prefix}weights_per_resolution.{r}.feature_weights."
    assert dict(terms["perceptual"].at(r)) == want.under(start), what
    assert want[f"{prefix}weights_per_resolution.{r}.img_weight"] == 0, what


def _piad(c, ref, data, what):
  del what
  m, res = c.model, ref["image_res"]
  assert (m.res, m.channels, m.latent_dim, m.latent_res) == (
      res, ref["image_dim"], ref["latent_dim"], ref["latent_res"])
  blocks = dpa_nets.needed_widths(res, ref["latent_res"])
  used = lambda key, fine_first: tuple(ref[f"{key}.kwargs.inner_dims"][-blocks:] if fine_first
                                       else ref[f"{key}.kwargs.inner_dims"][:blocks])
  assert tuple(m.enc) == used("enc", True) and tuple(m.critic_image) == used("ddis", True)
  assert tuple(m.dec) == used("dec", False)
  assert tuple(m.critic_latent) == tuple(ref["edis.kwargs.inner_dims"])
  layers = ref.under("image_rec_loss.loss_kwargs.feature_weights.")
  assert perceptual.parse_layers(c.method.layers) == {0: layers}
  assert c.method.loss == ref["image_rec_loss.loss_type"]
  assert (c.train.steps, c.train.batch_size) == (ref["iters"], ref["batch_size"])
  assert (c.method.n_critic, c.method.policy.every) == (ref["n_dis"], ref["update_grad_norm_iter"])
  for side in ("image", "latent"):
    ours = c.method[f"adv_{side}"]
    theirs = ref.under(f"{side}_adv_loss.loss_kwargs.")
    loss = ref[f"{side}_adv_loss.loss_type"]
    assert ours.name == LOSSES.get(loss, loss)
    assert all(ours[OPTIONS.get(k, k)] == v for k, v in theirs.items())
  o = c.optim
  assert [o.lr, o.lr_critic_image, o.lr_critic_latent] == [
      ref[f"adam_kwargs.{k}.lr"] for k in ("enc_dec", "ddis", "edis")]
  assert [o.b1, o.b2] == ref["adam_kwargs.enc_dec.betas"]
  assert all(ref[f"{net}.type"] == "residual9" for net in ("enc", "dec", "ddis"))
  assert m.variant == "2021"  # residual9, which the paper of 2019 has otherwise
  assert ref["adam_kwargs.ddis.betas"] == ref["adam_kwargs.edis.betas"] == [o.b1, o.b2]
  assert ref["image_rec_loss.loss_kwargs.img_weight"] == 0
  if data == "camelyon16":
    assert not c.data.random_crop and not c.data.random_flip


def _deep_geo(c, ref, data, what):
  assert (c.train.epochs, c.train.batch_size, c.train.steps) == (ref["epochs"], ref["batch_size"], 0), what
  assert ref["checkpoint_callback"] is None and ref["early_stopping_callback"] is None, what
  assert (c.train.eval_every, c.train.early_stop, c.eval.checkpoint) == (0, 0, "last"), what


def _deep_if(c, ref, data, what):
  del data
  assert (c.method.taps, c.train.batch_size) == (ref["feature_extraction_type"], ref["batch_size"]), what
  assert (c.method.size, c.method.forest.trees, c.train.steps) == (299, 100, 0), what


COMPARE = {"dpa": _dpa, "piad": _piad, "deep_geo": _deep_geo, "deep_if": _deep_if}
