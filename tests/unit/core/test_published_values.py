"""Configs that reproduce a publication have the values of that publication, each read there by hand.

test_config_values.py compares configs with a table of their own values, which is written anew when a value
changes on purpose; here stands what must not change, whatever the reason: "as published" is what these
configs say of themselves. The 612 files of the one-class benchmark are compared in
tests/parity/test_published_runs.py; here is what those files leave to the code that reads them.
"""

import importlib
import re

import pytest

from data_pipelines.datasets import natural
from data_pipelines.errors import UserError
from medae_jax.metrics import roc

# {config: {field: value}}; fields as in the config, values in the words of the publication.
DAE = {  # Kascenas et al., MIDL 2022, and its public code
    "data.modalities": ("flair", "t1", "t1ce", "t2"), "data.image_size": (128, 128),
    "data.orientation": "LPS",     # as BraTS stores them: nothing is turned
    "data.placement": "scan",      # the whole slice is resized
    "data.unit": "percentile",     # the 99th of the positive voxels
    "data.noise_res": 16, "data.noise_std": 0.2, "data.noise_roll": "batch",
    "data.flip": False, "data.gain": 0.0, "data.folds": 0, "data.limit_train": 0,
    "model.depth": 4, "model.wf": 6,
    "method.loss_over": "all",     # the masked error is averaged over the background, too
    "optim.lr": 1e-4, "optim.b1": 0.9, "optim.b2": 0.999, "optim.eps": 1e-8, "optim.amsgrad": True,
    "optim.weight_decay": 1e-5, "optim.clip": 0.5,
    "optim.schedule": "cosine_cyclic", "optim.half_period": 100, "optim.epoch_steps": 32,
    "train.steps": 2100 * 32, "train.epochs": 0.0, "train.batch_size": 16, "train.accum": 1,
    "train.best_metric": "val/loss", "train.best_mode": "min", "train.early_stop": 0,
    "eval.checkpoint": "best",
    "method.score.kind": "published", "method.score.foreground": True, "method.score.erosion": 5,
    "method.score.median": 5,
    "method.score.gaussian": 0.0, "method.score.test_noise_draws": 0, "method.score.weights_positive": (),
    "method.score.weights_negative": (), "method.score.image_score": "mean",
    "eval.components": 20, "eval.dice_thresholds": "1000", "eval.fit_residual": False,
    "eval.choose_score": ()}
MARKS = {  # the public code of annotation removal, its newest state
    "method.parity": True, "method.alpha": 150.0, "method.beta": 1.0, "method.mse_weight": 1.0,
    "method.ssim_weight": 0.0, "method.ssim_window": 11,
    "model.network": "jung_unet", "model.width": 128, "model.head": "published", "model.bilinear": False,
    "model.full_skip": False, "model.dtype": "float32",
    "data.channels": 1, "data.resize": (336, 544), "data.image_size": (336, 544),
    "data.split_by": "reference",
    "data.val_share": 0.1, "data.test_share": 0.0, "data.flip_lr": 0.0, "data.flip_ud": 0.0,
    "data.gain": (1.0, 1.0), "data.gamma": (1.0, 1.0), "data.scale": (1.0, 1.0),
    "data.marks.style": "reference",
    "optim.lr": 1e-3, "optim.schedule": "constant", "optim.b1": 0.9, "optim.b2": 0.999, "optim.eps": 1e-8,
    "optim.weight_decay": 0.0, "optim.clip": 0.0,
    "train.epochs": 50, "train.steps": 0, "train.batch_size": 4, "train.early_stop": 0}
NOISY = {  # Mirikharaji et al. 2019, and its public code
    "method.baseline": "pixel_reweight", "method.normalise": "batch", "method.clip": 0.0,
    "method.uniform_mix": 0.0, "method.clean_weight": 0.0, "method.meta_dtype": "float32",
    "model.width": 64, "model.init": "torch", "model.dtype": "float32",
    "model.mean": (0.70769376, 0.59134567, 0.54666793), "model.std": (0.15497926, 0.16345601, 0.17852926),
    "data.image_size": 96, "data.noise": "polygon:3", "data.clean": 10,
    "optim.name": "sgd", "optim.lr": 1e-4, "optim.momentum": 0.99, "optim.weight_decay": 5e-5,
    "optim.schedule": "piecewise", "optim.boundaries": (99, 199),
    "train.epochs": 300, "train.steps": 0, "train.batch_size": 6,
    "data.batch_sizes.clean": 6}   # the code takes the noisy batch's size for both
CHEST = {  # Bercea et al., MICCAI 2023: what the deformable autoencoder and its rivals share
    "seed": 2109, "data.image_size": 128, "optim.b2": 0.999, "optim.eps": 1e-8, "train.steps": 0,
    "train.best_metric": "val/loss", "train.best_mode": "min", "train.early_stop": 25,
    "train.eval_every_epochs": 1, "eval.checkpoint": "best", "method.score.kind": "published",
    "method.score.image_score": "mean", "method.score.weights_positive": (), "eval.components": 0,
    "method.layers": "r11+r21+r31+r41", "method.trunk": "vgg19"}
LAYERED = {**CHEST, "optim.lr": 5e-4, "optim.b1": 0.9, "optim.schedule": "constant"}
MORPHAEUS = {
    **LAYERED, "method.loss": "l2 + 0.2*perceptual",  # 0.05 of a sum over four layers, a mean over them here
    "method.window": 9, "method.smoothness": "gradient_l2", "method.delta": 1.0, "method.beta": 3.0,
    "method.beta_epochs": 200, "method.warmup_epochs": 11, "method.score.of": "recon",
    "model.widths": (16, 32, 64, 128, 256, 256, 256), "model.strides": (2,) * 7, "model.kernel": 3,
    "model.act": "swish", "model.upsampling": "resize", "model.levels": 3, "model.both": True,
    "model.integration_steps": 7, "train.epochs": 500, "train.batch_size": 64}
_PLAIN = {**LAYERED, "method.loss": "l1", "model.widths": (32, 64, 128), "model.strides": (2, 2, 2, 2),
          "model.kernel": 5, "model.act": "leaky_relu", "model.upsampling": "transposed", "model.squeeze": 16,
          "train.epochs": 1000, "train.batch_size": 64}
_ALONE = {k: v for k, v in CHEST.items() if k not in ("method.layers", "method.trunk")}
ZOO = {
    "ae_s": {**_PLAIN, "model.latent": 0}, "ae_d": {**_PLAIN, "model.latent": 128},
    "vae": {**_ALONE, "optim.lr": 5e-4, "optim.b1": 0.9, "model.widths": (16, 32, 64, 256, 256),
            "model.latent": 256, "method.rec_log_std": 0.0, "optim.plateau_patience": 10,
            "optim.plateau_factor": 0.1, "train.epochs": 500, "train.batch_size": 128},
    "beta_vae": {**LAYERED, "method.loss": "l2", "method.regulariser": "capacity", "method.beta": 4.0,
                 "method.gamma": 2.0, "method.max_capacity": 50.0, "method.capacity_steps": 1e5,
                 "method.kl_weight": 0.008, "model.latent": 32, "model.width": 32, "model.hidden": 256,
                 "train.epochs": 1000, "train.batch_size": 64},
    "aae": {**_ALONE, "optim.lr": 5e-4, "optim.b1": 0.5, "optim.schedule": "piecewise", "optim.factor": 0.25,
            "optim.boundaries": (89, 179, 269, 359, 449), "method.rec_weight": 2.0,
            "method.latent_weight": 2.0,
            "model.width": 64, "model.latent": 256, "model.norm": "batch", "train.epochs": 500,
            "train.batch_size": 128},
    "si_vae": {**_ALONE, "optim.lr": 5e-5, "optim.b1": 0.9, "optim.schedule": "piecewise",
               "optim.factor": 0.1,
               "optim.boundaries": (350,), "method.beta_rec": 1.0, "method.beta_kl": 1.0,
               "method.beta_neg": 256.0, "method.gamma": 1e-8, "model.widths": (64, 128, 256, 512, 512),
               "model.latent": 128, "train.epochs": 1000, "train.batch_size": 32},
    "dae": {**_ALONE, "optim.lr": 1e-4, "optim.b1": 0.9, "optim.schedule": "cosine_cyclic",
            "optim.half_period": 100, "optim.weight_decay": 1e-5, "optim.amsgrad": True, "optim.clip": 0.0,
            "method.loss": "l1", "method.noise.noise_res": 16, "method.noise.noise_std": 0.2,
            "method.noise.noise_roll": "batch", "method.score.foreground": False, "method.score.erosion": 0,
            "method.score.median": 0, "model.depth": 4, "model.wf": 6, "train.epochs": 1000,
            "train.batch_size": 16}}
PARITY = {  # what the public code does although it does not say so
    "ae_s": {"model.norm": "frozen", "model.slope": 1.0},
    "ae_d": {"model.norm": "frozen", "model.slope": 1.0},
    "vae": {"method.sample": False, "method.kl": "published"},
    "beta_vae": {"method.score.sample": True, "method.validation_calls": 16},
    "aae": {"model.init": "torch", "train.early_stop": 0},
    "si_vae": {"model.norm": "frozen", "model.skip_by_identity": True, "method.score.sample": True,
               "optim.schedule": "constant"},
    "dae": {"optim.schedule": "constant"}}
SOUND = {  # ... and what a config does without that
    "ae_s": {"model.norm": "batch", "model.slope": 0.01},
    "vae": {"method.sample": True, "method.kl": "exact"},
    "beta_vae": {"method.score.sample": False, "method.validation_calls": 0}, "aae": {"model.init": "dcgan"},
    "si_vae": {"model.norm": "batch", "model.skip_by_identity": False, "method.score.sample": False}}
DPA = {  # Shvetsova et al. 2021
    "method.loss": "relative_perceptual_L1", "method.score.loss": "relative_perceptual_L1",
    "method.trunk": "vgg19", "method.vgg_stats": "published", "model.kind": "residual18",
    "model.norm": "none",
    "model.pad": "zero", "optim.b1": 0.9, "optim.b2": 0.999, "optim.eps": 1e-8, "optim.weight_decay": 0.0,
    "optim.clip": 0.0, "optim.lr_critic": 0.0, "method.adversarial.n_critic": 2,
    "method.growing.transition_steps": 20000, "method.growing.stable_steps": 20000,
    "method.adversarial.target_gamma": 1.0, "eval.checkpoint": "last", "train.early_stop": 0,
    "eval.components": 0, "eval.splits": ("test",)}
PIAD = {  # Tuluptceva et al. 2019, in the code of 2021
    "method.policy.name": "gradient_norms", "method.policy.every": 100, "method.policy.history": 200,
    "method.policy.smooth": 0.05, "method.policy.measure": "norm", "method.policy.average": "median",
    "method.ema": 0.0, "method.loss_limit": 1e6, "method.n_critic": 2, "model.variant": "2021",
    "model.latent_res": 1, "optim.lr": 2e-4, "optim.lr_critic_image": 5e-4, "optim.lr_critic_latent": 5e-4,
    "optim.b1": 0.5, "optim.b2": 0.99, "optim.weight_decay": 0.0, "method.score.loss": "",
    "method.score.layers": "", "method.adv_image.target_gamma": 1.0, "method.adv_latent.target_gamma": 1.0,
    "train.batch_size": 32, "eval.checkpoint": "last", "eval.splits": ("test",)}
OF_2019 = {"model.variant": "2019", "method.policy.measure": "std", "optim.lr": 1e-4,
           "optim.weight_decay": 1e-8,
           "method.policy.average": "median", "method.layers": "r42", "train.steps": 100_000}
_GEO = {  # Golan & El-Yaniv 2018, as the benchmark runs it
    "method.flip": True, "method.rotations": 4, "method.fit_images": 0, "method.score.kind": "dirichlet",
    "method.score.offset": 1e-6, "optim.lr": 1e-3, "optim.b1": 0.9, "optim.b2": 0.999, "optim.eps": 1e-7,
    "optim.l2": 0.00025, "train.batch_size": 128, "train.early_stop": 0, "eval.checkpoint": "last",
    "eval.splits": ("test",)}
_GEO_SMALL = {**_GEO, "method.shift": 8, "model.blocks": 1, "model.widen": 4}    # WRN-10-4
_GEO_LARGE = {**_GEO, "method.shift": 16, "model.blocks": 2, "model.widen": 8}   # WRN-16-8
FOREST = {  # Ouardini et al. 2019
    "method.backbone": "inception_resnet_v2", "method.size": 299, "method.eight_bit": True,
    "method.forest.trees": 100, "method.forest.samples": 256, "train.batch_size": 32, "train.steps": 0}
_FOLD = {"eval.checkpoint": "best", "train.early_delta": 0.001}
CASES = {
    "dae_brats": DAE, "dae_brats:single": {**DAE, "optim.schedule": "cosine"},
    "annotation_removal:reference": MARKS, "noisy_skin": NOISY, "morphaeus_cxr": MORPHAEUS,
    "morphaeus_cxr:parity": {**MORPHAEUS, "model.norm": "frozen", "data.preparation": "published"},
    **{f"ae_cxr:{word}": {**values, **SOUND.get(word, {})} for word, values in ZOO.items()},
    **{f"ae_cxr:{word},parity": {**values, "data.preparation": "published", **PARITY[word]}
       for word, values in ZOO.items()},
    **{f"dpa_{data}": DPA for data in ("cifar10", "svhn", "nih", "camelyon16")},
    "dpa_cifar10:fold=0,lists=x": {**_FOLD, "train.steps": 20_000, "train.eval_every": 1000,
                                   "train.early_stop": 4},
    "dpa_nih:fold=0": {**_FOLD, "train.steps": 100_000, "train.eval_every": 1000, "train.early_stop": 4},
    "dpa_nih:exp=pg,fold=0": {"train.steps": 10**6, "method.smooth_pg": True,
                              "method.growing.initial_res": 8},
    "dpa_camelyon16:exp=pg": {"method.smooth_pg": True, "method.growing.initial_res": 16, "train.steps": 8666,
                              "data.crop_size": 64, "data.random_crop": True, "data.random_flip": True},
    **{f"piad_{data}": PIAD for data in ("cifar10", "svhn", "nih", "camelyon16")},
    "piad_cifar10:exp=paper2019": {**PIAD, **OF_2019},
    "piad_cifar10:exp=paper2019,ablation=mse": {
        **OF_2019, "method.loss": "perceptual", "method.layers": "image", "method.policy.name": "fixed",
        "method.normalize": False, "method.absolute": False, "method.relative": False},
    "piad_cifar10:exp=paper2019,ablation=perceptual_l1": {
        **OF_2019, "method.loss": "perceptual", "method.normalize": True, "method.absolute": True,
        "method.relative": False, "method.policy.name": "gradient_norms"},
    "deep_geo_cifar10": _GEO_SMALL, "deep_geo_svhn": _GEO_SMALL, "deep_geo_nih": _GEO_LARGE,
    "deep_geo_camelyon16": {**_GEO_LARGE, "data.crop_size": 64},
    "deep_geo_cifar10:fold=0,lists=x": {**_FOLD, "train.epochs": 100.0, "train.early_stop": 3,
                                        "train.keep": 100},
    "deep_geo_nih:fold=0": {**_FOLD, "train.epochs": 20.0, "train.early_stop": 1,
                            "train.eval_every_epochs": 1.0},
    "deep_geo_camelyon16:fold=0": {**_FOLD, "train.epochs": 10.0, "train.early_stop": 1},
    **{f"deep_if_{data}": FOREST for data in ("cifar10", "svhn", "nih", "camelyon16")},
    "deep_if_nih:exp=reproduce": {**FOREST, "method.taps": "concat", "data.crop_size": 224,
                                  "data.resize": 64},
    "deep_if_camelyon16:exp=reproduce": {"method.taps": "concat", "data.crop_size": 64}}


def found(config, field):
  """The value as plain Python."""
  for name in field.split("."):
    config = config[name]
  return tuple(config) if isinstance(config, (tuple, list)) else config


@pytest.mark.parametrize("case", CASES)
def test_values_are_those_of_the_publication(case):
  name, _, argument = case.partition(":")
  config = importlib.import_module(f"configs.{name}").get_config(argument or None)
  differ = {k: (found(config, k), v) for k, v in CASES[case].items() if found(config, k) != v}
  assert not differ, "field: (ours, published)"


def test_the_published_score_of_ones_own_scans_is_that_of_the_paper():
  """dae_nifti:published: another network and length, the paper's noise, unit, placement and score."""
  config = importlib.import_module("configs.dae_nifti").get_config("published")
  shorter = ("data.modalities", "model.wf", "optim.lr", "optim.schedule", "train.steps")
  differ = [k for k, v in DAE.items() if k not in shorter and found(config, k) != v]
  assert not differ


def test_natural_images_have_the_published_validation_classes_and_sizes():
  """Of the benchmark's lists, by normal class from 0 to 9; the sizes and names of the official sets."""
  assert natural.VAL_CLASS == {"cifar10": (7, 7, 4, 0, 1, 1, 7, 6, 4, 7),
                               "svhn": (8, 9, 6, 4, 0, 8, 8, 9, 0, 6)}
  assert natural.OFFICIAL_TRAIN == {"cifar10": 50_000, "svhn": 73_257}
  assert " ".join(natural.CLASS_NAMES["cifar10"]) == (
      "airplane automobile bird cat deer dog frog horse ship truck")
  assert "".join(natural.CLASS_NAMES["svhn"]) == "0123456789"


def test_seeds_of_resamples_are_those_of_the_tables_of_bercea_et_al():
  assert roc.PUBLISHED_SEEDS == (101822, 101922, 102022, 102122, 102222)


@pytest.mark.parametrize("name", ["dae_brats", "noisy_skin", "morphaeus_cxr", "ae_cxr"])
def test_tables_that_could_not_be_read_are_not_quoted(name):
  """No copy of these papers' tables could be checked: a figure from memory is none of theirs."""
  text = importlib.import_module(f"configs.{name}").__doc__
  assert not re.search(r"\b(AP|Dice|AUROC|AUC)\W+(of\s+)?0\.\d\d", text)


ONE_CLASS = [f"{model}_{data}" for model in ("dpa", "piad", "deep_geo", "deep_if")
             for data in ("cifar10", "svhn", "nih", "camelyon16")]


@pytest.mark.parametrize("name", ["dpa_cxr", *ONE_CLASS])
def test_published_runs_are_three_and_classes_ten(name):
  """Python would take run=-1 for the last one; run=3 is the first that nobody published."""
  get = importlib.import_module(f"configs.{name}").get_config
  natural_set = name.endswith(("cifar10", "svhn"))
  for argument, fine in {"run": range(3), **({"cls": range(10)} if natural_set else {})}.items():
    for value in (fine.start, fine.stop - 1):
      get(f"{argument}={value}")
    for value in (-1, fine.stop):
      with pytest.raises(UserError, match=f"{argument}={value}"):
        get(f"{argument}={value}")
