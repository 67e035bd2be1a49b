"""Hyper-parameters that a search by folds chooses from, for each method of the one-class benchmark.

The published searches vary transforms, bottleneck, widths with a paired learning rate, and feature
layers; their complete grids are not published, so these are the values that occur in the final
configurations. The length of training is searched as well: it is that of the folds' best states.
"""

from __future__ import annotations

from collections.abc import Mapping
import itertools
from typing import Any

from data_pipelines.errors import UserError

Setting = dict[str, Any]
_LAYERS = ("r32", "r42", "r32+r42")
# DPA: (bottleneck, its side, widths, learning rate).
_DPA = {
    32: ((8, 1, (8,) * 4, 0.01), (16, 1, (16,) * 4, 0.005), (32, 1, (32,) * 4, 0.002),
         (64, 1, (32, 64, 64, 64), 0.001), (256, 1, (32, 64, 128, 256), 0.0002)),
    "nih": ((16, 1, (16,) * 5, 0.002), (64, 1, (64,) * 5, 0.0005)),
    "camelyon16": ((4, 8, (4,) * 4, 0.001), (32, 16, (32,) * 3, 0.0002), (64, 16, (64,) * 3, 0.0001))}
# PIAD: (latent, widths of encoder and image critic, hidden widths of the latent critic).
_PIAD = {
    32: ((256, (64, 128, 256, 256), (1024, 1024)), (128, (64, 128, 128, 128), (512, 512))),
    "nih": ((256, (32, 64, 128, 256, 256), (1024, 1024)),),
    "camelyon16": ((128, (32, 64, 128, 128, 128), (1024, 1024)),
                   (256, (32, 64, 128, 256, 256), (1024, 1024)))}
# Deep IF: layers of a backbone; the first row has those of the published final runs.
_TAPS = {"inception": ("conv2d_1a", "mixed_6a", "mixed_7a", "conv2d_7b", "concat"),
         "vgg": ("r22", "r33", "r43", "r53", "concat")}
# Frozen features: each score alone, so that nothing is fitted that is not looked at.
_FROZEN = (*({"eval.choose_score": (), "method.scores": (score,), "method.image_taps": (taps,),
              "method.score.image": score, "method.score.taps": taps, "method.score.map": "none"}
             for score in ("mahalanobis", "neighbours", "forest")
             for taps in ("r22", "r33", "r43", "r33+r43+r53")),
           *({"eval.choose_score": (), "method.scores": (score,), "method.score.image": score,
              "method.score.map": score} for score in ("padim", "patchcore")))
_NIH = ({"data.equalize_hist": False}, {"data.equalize_hist": True})
_CROPPED = tuple({**e, "data.crop_size": c} for c in (224, 300) for e in _NIH)
_GREY = ({"data.to_grayscale": False, "data.channels": 3},
         {"data.to_grayscale": True, "data.channels": 1})
_TRANSFORMS = {  # of methods that are searched in nothing else, or in few things
    "cifar10": ({},), "svhn": _GREY, "camelyon16": ({},), "nih": _CROPPED}


def settings(method: str, data: str, backbone: str = "") -> tuple[Setting, ...]:
  """({field of the config: value}, ...), each a candidate.

  Args:
    method: dpa, piad, deep_geo, deep_if or frozen. data: cifar10, svhn, camelyon16 or nih.
    backbone: of deep_if; "" = the published one.

  Raises:
    UserError: no candidates are known for that backbone.
  """
  size = 32 if data in ("cifar10", "svhn") else data
  own = {"dpa": lambda: _dpa(size), "piad": lambda: _piad(size), "deep_geo": lambda: [{}],
         "deep_if": lambda: _deep_if(backbone), "frozen": lambda: _FROZEN}[method]()
  transforms = {"dpa": {"nih": _NIH}, "piad": {"nih": _NIH}, "frozen": {}}.get(method, _TRANSFORMS)
  return _product(own, transforms.get(data, ({},)))


def _deep_if(backbone):
  """One layer each, or all of them."""
  layers = next((v for k, v in _TAPS.items() if (backbone or "inception").startswith(k)), None)
  if layers is None:
    raise UserError(f"config argument search: no layers are known for backbone={backbone}; write "
                    "config.sweep.settings in a config of your own")
  return [{"method.taps": taps} for taps in layers]


def _dpa(size):
  return [{"method.layers": layers, "model.latent_dim": dim, "model.enc_widths": widths,
           "optim.lr": lr, **({} if side == 1 else {"model.latent_res": side})}
          for dim, side, widths, lr in _DPA[size]
          for layers in (_LAYERS if size == 32 else _LAYERS[:2])]


def _piad(size):
  return [{"method.layers": layers, "model.latent_dim": dim, "model.enc": widths,
           "model.dec": widths[::-1], "model.critic_image": widths, "model.critic_latent": latent}
          for dim, widths, latent in _PIAD[size]
          for layers in (_LAYERS if size == "nih" else _LAYERS[:2])]


def _product(*several: Mapping | Any) -> tuple[Setting, ...]:
  """Every combination of one setting each."""
  return tuple({k: v for one in chosen for k, v in one.items()} for chosen in itertools.product(*several))
