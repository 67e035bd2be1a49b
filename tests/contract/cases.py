"""What the contract tests run over: the tiny test-only methods and the :smoke variant of every config."""

import functools
import importlib.util
import pathlib

import ml_collections

from configs import common

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What of a method could depend on the number of devices: {feature: (tiny method, config of a real one)}.
FEATURES = {
    "statistics of the batch": ("BatchNormMethod", "annotation_removal"),
    "several optimisers, frozen networks": ("AdversarialMethod", "piad_camelyon16"),
    "several streams, weights of the whole batch": ("TwoStreamMethod", "noisy_skin"),
    "stages that grow": ("GrowingMethod", "dpa_nih"),
    "critic steps before each update": ("AdversarialMethod", "dpa_camelyon16"),
    "fitted at the end": ("FitOnlyMethod", "deep_if_camelyon16"),
    "sums over normal images, fitted at the end": ("FitOnlyMethod", "frozen_camelyon16"),
    "noise drawn on the device": ("BatchNormMethod", "dae_brats"),
    "codes that one update hands to the next": ("AdversarialMethod", "ae_cxr:si_vae"),
}
TINY = tuple(dict.fromkeys(tiny for tiny, _ in FEATURES.values()))
REAL = tuple(real for _, real in FEATURES.values() if real)
# Those that run on several devices in every run of the tests; all do under the mark `campaign`. The steps of
# annotation_removal, noisy_skin and deep_geo have tests of their own for that in tests/unit/methods.
EVERY_RUN = ("dae_brats",)
# Fields of real cases that make their programs smaller, and nothing that the tests are about: blocks of two
# layers instead of four, on three stages.
SMALLER = {"dpa_nih": {"model.kind": "regular"}, "dpa_camelyon16": {"model.kind": "regular"}}
# Methods beside the first one of a config file (si_vae runs above): {file: arguments}.
WORDS = {"ae_cxr": ("vae", "aae")}
# Fields that a case's method need not read, as another field of it decides: {case: fields}.
UNREAD = {
    # the loss is l1, the code not dense, the rate constant
    "ae_cxr": {"method.vgg_stats", "method.vgg_stats_steps", "model.squeeze", "optim.epoch_steps"},
    "ae_cxr:vae": {"optim.epoch_steps"},
    # no noise at test time, no guided filter, a constant rate
    "dae_brats": {"method.score.guided_eps", "method.score.guide_channel",
                  "method.score.test_noise_res", "method.score.test_noise_std",
                  "method.score.test_noise_mirror", "optim.epoch_steps", "optim.half_period"},
    # a wasserstein critic, data not resident, one stage
    "dpa_camelyon16": {"method.adversarial.reg_alpha", "method.adversarial.reg_type", "method.cache_features",
                       "method.growing.stable_steps", "method.growing.transition_steps", "method.smooth_pg"},
    # images as they are, no score of neighbours
    "frozen_beside": {"method.eight_bit", "method.neighbours"},
    "morphaeus_cxr": {"method.vgg_stats_steps"},  # no trunk
    "noisy_skin": {"method.finetune_lr", "method.finetune_share", "optim.boundaries", "optim.epoch_steps"},
    # wasserstein critics, weights from gradient norms, data not resident
    "piad_camelyon16": {"method.adv_image.reg_alpha", "method.adv_image.reg_type", "method.cache_features",
                        "method.adv_latent.reg_alpha", "method.adv_latent.reg_type",
                        "method.policy.weight_enc", "method.policy.weight_dec"}}


def _tiny(cls):
  c = common.base()
  c.method = ml_collections.ConfigDict({"name": f"tests.tiny_methods:{cls}", "score": {}})
  c.model = ml_collections.ConfigDict()
  c.data = ml_collections.ConfigDict({"name": "tests.tiny_data", "image_size": 16, "channels": 1,
                                      "streams": cls == "TwoStreamMethod",
                                      "batch_sizes": {"clean": 8}})
  c.train.update(steps=4, batch_size=16, eval_every=2, save_every=2, log_every=1)
  c.eval.update(batch_size=8, bootstrap=50)
  return c


def config_files():
  """Config files that describe an experiment."""
  return sorted(p for p in (ROOT / "configs").glob("*.py")
                if p.stem not in ("__init__", "common", "from_workdir")
                and not p.stem.startswith("sweep_")  # grids of the others; tests/e2e runs one
                and "def get_config(" in p.read_text(encoding="utf-8"))


def load_config(path, arg=None):
  """get_config(arg) of a config file."""
  spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(arg)


def _smoke(path, word=""):
  c = load_config(path, f"{word},smoke")
  with c.unlocked():
    c.train.update(eval_every=2, save_every=2, log_every=1, steps_per_call=1)
    c.train.steps = min(4, c.train.steps)
    c.train.batch_size = -(-c.train.batch_size // 8) * 8
    for name, n in (c.data.get("batch_sizes", None) or {}).items():
      c.data.batch_sizes[name] = -(-n // 8) * 8
    c.update_from_flattened_dict(SMALLER.get(path.stem, {}))
  return c


@functools.cache
def names():
  """Names of all cases: TINY, and one config a method, the first of those that share it; "file:word"."""
  first = {}
  for path in config_files():
    first.setdefault(load_config(path, "smoke").method.name, path.stem)
  return (*TINY, *first.values(), *(f"{stem}:{word}" for stem in WORDS for word in WORDS[stem]))


def config(name):
  """The locked config of a case: 4 steps, batches divisible by 8."""
  stem, _, word = name.partition(":")
  c = _tiny(name) if name in TINY else _smoke(ROOT / "configs" / f"{stem}.py", word)
  return c.lock()
