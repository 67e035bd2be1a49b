"""Our configs of DPA against the final configurations of its paper."""

import importlib
import json

import pytest

from medae_jax.core import method as method_lib
from medae_jax.methods import dpa
from tests.golden_cases import find_files


def published():
  files, reason = find_files("protocol", "final_configs*.json")
  if not files:
    return [pytest.param("", {}, marks=pytest.mark.skip(reason=reason), id="none")]
  found = {}
  for path in files:
    found.update(json.loads(path.read_text()))
  return [(k, v) for k, v in sorted(found.items()) if k.startswith("dpa/")]


_NAMES = {"wo_pg": "wo_pg", "pg": "pg", "wo_pg_unsupervised": "unsupervised",
          "wo_pg_L1_unsupervised": "L1_unsupervised", "wo_pg_with_L1": "with_L1",
          "wo_pg_with_adversarial": "with_adversarial",
          "wo_pg_with_adversarial_L1": "with_adversarial_L1"}


@pytest.mark.parametrize("key, entry", published())
def test_published_configurations(key, entry):
  """Every final run of the paper: our config has the values of its file."""
  _, dataset, name, *weight = key.split("/")
  module = importlib.import_module(f"configs.dpa_{dataset}")
  for cls, own in entry["per_class"].items():
    want = {**entry["common"], **own}
    for run, seed in enumerate(entry["random_seed_by_class_and_run"][cls]):
      words = {"cifar10": f"cls={cls}", "svhn": f"cls={cls}", "nih": f"view={cls}",
               "camelyon16": ""}[dataset]
      if dataset in ("nih", "camelyon16"):
        words += f",exp={_NAMES[name]}" + (f",weight={weight[0][7:]}" if weight else "")
      c = module.get_config(f"{words},run={run},vgg=x.pth")
      assert c.seed == seed, (key, cls, run)
    _compare(c, want, f"{key} {cls}")


def _compare(c, want, what):
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
  _compare_loss(c, method, want, what, [int(s.name.split("_")[1]) for s in stages])
  weight = want.get("loss_weights.image_adv_loss", 0)
  assert c.method.adversarial.weight == weight, what
  if weight:
    assert list(c.model.critic_widths or c.model.enc_widths) == (
        want["ddis.kwargs.inner_dims"][-(res // 4).bit_length():]), what
    for field, published in (("wasserstein_weight", "lambd"),
                             *[(k, k) for k in ("gradient_penalty", "norm_penalty")]):
      assert c.method.adversarial[field] == want[f"image_adv_loss.loss_kwargs.{published}"], what


def _compare_loss(c, method, want, what, resolutions):
  terms = {t.name: t for t in method.perceptual.terms}
  loss = want["image_rec_loss.loss_type"]
  prefix = "image_rec_loss.loss_kwargs."
  if loss == "compose":
    assert terms["l1"].weight == pytest.approx(want[prefix + "loss_2.loss_weight"]), what
    prefix, loss = prefix + "loss_1.loss_kwargs.", want[prefix + "loss_1.loss_type"]
  if loss == "l1":
    assert list(terms) == ["l1"], what
    return
  assert loss == "relative_perceptual_L1" and terms["perceptual"].relative, what
  assert c.method.smooth_pg == want[prefix + "use_smooth_pg"], what
  for r in set(resolutions):
    start = f"{prefix}weights_per_resolution.{r}.feature_weights."
    layers = {k[len(start):]: v for k, v in want.items() if k.startswith(start)}
    assert dict(terms["perceptual"].at(r)) == layers, what
  for name in ("equalize_hist", "crop_size"):
    if f"train_dataset.transform_kwargs.{name}" in want:
      assert c.data[name] == want[f"train_dataset.transform_kwargs.{name}"], what
