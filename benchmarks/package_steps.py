"""The same steps by the package: its methods, its parallel step, its optimisers.

Needs jax, flax, optax and absl alone, as GPU machines often have them: no TensorFlow and, though the
package's configs are ml_collections', not that either.
"""

from __future__ import annotations

import pathlib
import tempfile

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from benchmarks import settings
from medae_jax.core import method as method_lib, parallel
from medae_jax.methods import _features
from medae_jax.weights import deep_geo

VARIANTS = ("float32", "bfloat16")


def build(setting, tensors, batch, device):
  """step() -> loss [] of the last training step of one dispatch; step.program() -> it, lowered.

  Args:
    setting: of benchmarks.settings plus `variant`, a dtype; optional: `steps_per_call` and the
      fields of config.model to change, `model` {field: value}.
    tensors, batch: as benchmarks.settings.make returns them.
    device: "cpu" or "gpu"; checked against JAX's.
  """
  if (jax.default_backend() == "cpu") != (device == "cpu"):
    raise ValueError(f"JAX runs on {jax.default_backend()}, not on {device}")
  if setting["task"] == "features":
    return _pooled(setting, tensors, batch)
  method, state, batch = (of_config(setting) if "config" in setting
                          else prepare(setting, tensors, batch))
  stage = method_lib.stages_of(method)[-1]
  train = parallel.train_step_fn(
      lambda s, b, r, axis: method.train_step(s, b, r, stage=stage, axis_name=axis), jax.random.key(0))
  calls = int(setting.get("steps_per_call", 1))
  stacked = jax.device_put(jax.tree.map(lambda x: np.stack([x] * calls), batch))
  holder = [state]

  def step():
    holder[0], metrics = train(holder[0], stacked)
    return metrics["loss"][-1]
  step.program = lambda: train.lower(holder[0], stacked)
  return step


def of_config(setting):
  """(method, state, batch) of the last stage of a config of the package, at random images."""
  import importlib

  from medae_jax import bench
  from medae_jax.training import durations
  path, _, argument = setting["config"].partition(":")
  module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
  config = module.get_config(argument or None).copy_and_resolve_references()
  with config.unlocked():
    config.train.batch_size = setting["batch"]
    config.model.dtype = setting["variant"]
  config = durations.without_data(config)
  method = method_lib.load(config)
  stages = method_lib.stages_of(method)
  state, batch = bench.state_at(method, config, stages, stages[-1], setting["batch"])
  return method, state, batch


def _pooled(s, tensors, batch):
  """step() -> mean of the features of a batch, as deep_if and frozen_features make them."""
  net = _features.Features(fields(s, method=dict(
      backbone="vgg16", backbone_weights="", taps=s["taps"], size=s["resized"][0], eight_bit=False,
      dtype=s["variant"])))
  params = {name: {"kernel": tensors[f"{name}.weight"].transpose(2, 3, 1, 0), "bias": tensors[f"{name}.bias"]}
            for name in settings.vgg16_layers(net.taps)}
  params, image = jax.device_put(({_features.NET: params}, batch["image"]))
  pooled = jax.jit(lambda p, x: net.pooled(p, x).mean())
  step = lambda: pooled(params, image)
  step.program = lambda: pooled.lower(params, image)
  return step


def lowered(setting, where=None):
  """jax.stages.Lowered of one training step on one device; nothing is computed or compiled.

  Args:
    setting: as of `build`. where: the sharding of all arguments; None = this machine's device.
  """
  step, state, batch = _shapes(setting)
  return jax.jit(lambda s, b: step(s, b, None), donate_argnums=0).trace(
      _placed(state, where), _placed(batch, where)).lower()


def lowered_on(setting, devices, reduce):
  """The same on all `devices`, which need not be there, as core/parallel.py's shard_map does it.

  Args:
    setting: its batch is that of one device. reduce: of config.parallel.
  """
  mesh = Mesh(np.array(devices), (parallel.AXIS,), axis_types=(AxisType.Auto,))
  whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), (parallel.AXIS,)))
  step, state, batch = _shapes({**setting, "batch": setting["batch"] * len(devices)})

  def one(s, b):
    with parallel.reduced_in(reduce):
      return step(s, b, parallel.AXIS)
  mapped = parallel.sharded(one, mesh, (whole.spec, split.spec))
  return mapped.trace(_placed(state, whole), _placed(batch, split)).lower()


def _placed(tree, where):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree)


def _shapes(setting):
  """((state, batch, axis) -> the step's results, state, batch), the last two as shapes."""
  if "config" in setting:
    method, state, batch = of_config(setting)
  else:
    tensors, batch = settings.make(setting)
    with tempfile.TemporaryDirectory() as folder:
      method, _, batch = _method(setting, tensors, batch, folder)
      state = jax.eval_shape(method.init, jax.random.key(0), batch)
  stage = method_lib.stages_of(method)[-1]
  step = lambda s, b, axis: method.train_step(s, b, jax.random.fold_in(jax.random.key(0), s.step),
                                              stage=stage, axis_name=axis)
  return step, state, batch


def _method(setting, tensors, batch, folder):
  """(method, tensors, batch) of a task that is no config."""
  batch = {**batch, "index": np.arange(setting["batch"], dtype=np.int32)}
  config, tensors, batch = {"dae": _dae, "annotation": _annotation, "perceptual": _perceptual,
                            "geometric": _geometric, "noisy": _noisy}[setting["task"]](
                                setting, tensors, batch, pathlib.Path(folder))
  config.model.update(setting.get("model", {}))
  return method_lib.load(config), tensors, batch


def prepare(setting, tensors, batch):
  """(method, state with the weights of `tensors`, batch with what the method needs)."""
  with tempfile.TemporaryDirectory() as folder:
    method, tensors, batch = _method(setting, tensors, batch, folder)
    state = method_lib.fresh_state(method, jax.random.key(0), batch)
    if setting["task"] == "geometric":  # its published form is Keras's
      filled = tuple({"net": tree} for tree in deep_geo.networks(tensors))
    else:
      filled = method.from_torch(tensors)
  params, stats = filled if isinstance(filled, tuple) else (filled, {})
  put = lambda old, new: jax.tree.map(jnp.asarray, {**old, **new})
  return method, state.replace(params=put(state.params, params),
                               stats=put(state.stats, stats)), batch


class _Fields(dict):
  """What a method reads of a config: fields by name, groups of them inside."""
  __getattr__ = dict.__getitem__
  __setattr__ = dict.__setitem__

  def copy_and_resolve_references(self):
    """A copy to change."""
    return _Fields(self)

  def __init__(self, fields):
    super().__init__({k: _Fields(v) if isinstance(v, dict) else v for k, v in fields.items()})


def fields(s, **groups):
  """What a config of these groups has, and what every config has besides."""
  return _Fields({**groups, "seed": 0,
                  "train": dict(steps=10**6, accum=1, batch_size=s["batch"])})


def _dae(s, tensors, batch, folder):
  del folder
  c = fields(
      s, method=dict(name="dae", loss_over="all", score=dict(
          weights_positive=(), weights_negative=(), erosion=5, median=5, image_score="mean",
          test_noise_draws=0, test_noise_res=16, test_noise_std=0.2, test_noise_mirror=0)),
      model=dict(depth=s["depth"], wf=s["wf"], dtype=s["variant"], precision="", remat=False),
      optim=dict(lr=s["lr"], schedule="constant", b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-5,
                 clip=0.5, amsgrad=True),
      data=dict(name="synthetic", image_size=tuple(s["size"]), noise_res=s["noise_res"],
                noise_std=0.2, noise_roll="batch"))
  return c, tensors, {**batch, "roll": np.tile(batch["roll"], (s["batch"], 1))}


def _annotation(s, tensors, batch, folder):
  del folder
  c = fields(
      s, method=dict(name="annotation_removal", parity=True, alpha=150.0, beta=1.0, mse_weight=1.0,
                     ssim_weight=0.0, ssim_window=11, mark_weight=0.0,
                     score=dict(threshold=0.06, dilate=1, fill="network")),
      model=dict(network="jung_unet", width=s["width"], head="published",
                 bilinear=False, full_skip=False, dtype=s["variant"]),
      optim=dict(lr=s["lr"], schedule="constant", b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0,
                 clip=0.0),
      data=dict(name="annotations", image_size=tuple(s["size"]), channels=s["channels"]))
  mask = (batch["image"] != batch["clean"]).astype(np.float32)
  return c, tensors, {**batch, "mask": mask}


def _perceptual(s, tensors, batch, folder):
  """The trunk goes through files, as it does for users."""
  np.savez(folder / "vgg.npz", **{k: v for k, v in tensors.items() if k.startswith("features.")})
  np.savez(folder / "stats.npz", **{f"{s['layer']}_mean": tensors["stats.mean"],
                                    f"{s['layer']}_std": tensors["stats.std"]})
  widths = tuple(s["widths"])
  c = fields(
      s, method=dict(
          name="dpa", loss="relative_perceptual_L1", layers=s["layer"], normalize=False,
          absolute=False, relative=False, smooth_pg=False, vgg_weights=str(folder / "vgg.npz"),
          vgg_stats=str(folder / "stats.npz"), vgg_stats_steps=100, vgg_widths=widths,
          vgg_dtype=s["variant"], cache_features=False, parity=False,
          growing=dict(initial_res=0, transition_steps=1, stable_steps=1, steps_per_stage="",
                       batch_sizes="", antialias=False),
          adversarial=dict(weight=0.0, name="wasserstein", n_critic=0),
          score=dict(loss="", layers="")),
      model=dict(kind="residual18", max_res=s["size"][0], latent_dim=s["latent"], latent_res=1,
                 enc_widths=widths, dec_widths=(), critic_widths=(), allow_long_widths=False,
                 norm="none", pad="zero", use_wscale=False, normalize_latents=False, pool="avg",
                 upsample="nearest", dtype=s["variant"]),
      optim=dict(lr=s["lr"], lr_critic=0.0, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0, clip=0.0),
      data=dict(name="natural", image_size=s["size"][0], channels=s["channels"], resident=False))
  return c, {k: v for k, v in tensors.items() if k.startswith(("enc.", "dec."))}, batch


def _geometric(s, tensors, batch, folder):
  del folder
  c = fields(
      s, method=dict(name="deep_geo", flip=True, shift=s["shift"], rotations=4, views_at_once=8, fit_images=0,
                     parity=False, score=dict(kind="dirichlet", offset=1e-6)),
      model=dict(blocks=s["blocks"], widen=s["widen"], dtype=s["variant"]),
      optim=dict(lr=s["lr"], b1=0.9, b2=0.999, eps=1e-7, l2=s["l2"]),
      data=dict(name="natural", image_size=s["size"][0], channels=s["channels"]))
  return c, tensors, batch


def _noisy(s, tensors, batch, folder):
  del folder
  c = fields(
      s, method=dict(name="noisy_annotation", baseline="pixel_reweight", meta="jvp",
                     meta_dtype="float32", normalise="batch", clip=0.0, uniform_mix=0.0,
                     clean_weight=0.0, finetune_share=0.0, finetune_lr=0.1, track=0, track_size=32,
                     track_window=10, score={}),
      model=dict(width=s["width"], init="torch", dtype=s["variant"], precision="", sides="pad",
                 mean=(0.0,), std=(1.0,)),
      optim=dict(name="sgd", lr=s["lr"], momentum=0.99, weight_decay=5e-5, schedule="constant"),
      data=dict(name="segmentation", image_size=tuple(s["size"]), channels=s["channels"]))
  part = lambda name: {"image": batch[f"{name}image"], "mask": batch[f"{name}mask"],
                       "index": batch["index"]}
  return c, tensors, {"noisy": part(""), "clean": part("clean_")}
