"""Image AUROC that the papers report, each with its source; what could not be confirmed is left out.

The papers' trunks are VGG19 (DPA, PIAD) and InceptionResNetV2 (Deep IF) with ImageNet weights. The complete
tables of the DPA paper were not at hand: its figures here are those that other texts quote.
"""

from __future__ import annotations

import dataclasses

SOURCES = {
    "dpa": "Shvetsova et al., IEEE Access 9:118571-118583, 2021, as quoted in public",
    "geo": "Golan and El-Yaniv, NeurIPS 2018; value as in Ouardini et al. 2019",
    "if": "Ouardini et al., 2019",
    "piad": "Tuluptceva et al., ACPR 2019: code and settings of 2019",
    "rerun": "independent re-run of the published code on a T4 GPU: deca1111/Anomaly_Detection_Comparison"}


@dataclasses.dataclass(frozen=True)
class Figure:
  """One number. mean, std: AUROC in 0 to 1, std None where the text has none. source: key of SOURCES."""
  method: str  # as identity.method_of names a sweep's rows
  data: str
  mean: float
  std: float | None
  source: str


FIGURES = (
    Figure("deep_geo reproduce", "cifar10", 0.860, None, "geo"),
    Figure("deep_if reproduce", "cifar10", 0.882, 0.066, "if"),
    Figure("deep_if reproduce", "svhn", 0.554, 0.041, "if"),
    Figure("piad paper2019", "cifar10", 0.799, None, "piad"),
    Figure("deep_if reproduce", "nih subset", 0.766, None, "dpa"),
    Figure("deep_if with_cv", "camelyon16", 0.895, None, "dpa"),
    Figure("deep_if with_cv", "nih subset", 0.873, None, "dpa"),
    Figure("piad with_cv", "camelyon16", 0.906, None, "dpa"),
    Figure("piad with_cv", "nih subset", 0.880, None, "dpa"),
    Figure("dpa wo_pg", "nih subset", 0.920, None, "dpa"),
    Figure("dpa pg", "camelyon16", 0.934, None, "dpa"),
    Figure("dpa pg", "nih subset", 0.926, None, "dpa"),
    Figure("deep_if reproduce", "nih subset", 0.760, None, "rerun"),
    Figure("piad with_cv", "nih subset", 0.885, None, "rerun"),
    Figure("dpa wo_pg", "nih subset", 0.925, None, "rerun"))
# Test images of the official splits: figures on fewer are of another data set.
IMAGES = {"cifar10": 10000, "svhn": 26032, "camelyon16": 4817, "nih subset": 1344, "nih AP": 14500,
          "nih PA": 11096}
# The pretrained network of the papers' runs, with its ImageNet weights.
TRUNKS = {"dpa": "vgg19", "piad": "vgg19", "deep_if": "inception_resnet_v2", "deep_geo": ""}
_DEFAULT = {"dpa": "dpa wo_pg", **{m: f"{m} with_cv" for m in ("piad", "deep_geo", "deep_if")}}


def figures(method: str, data: str) -> list[Figure]:
  """Those of a row and a column; a method without a named experiment is taken for its default one.

  A row with other settings ("dpa, loss=l1") has none.
  """
  wanted = _DEFAULT.get(method, method)
  return [f for f in FIGURES if (f.method, f.data) == (wanted, data)]


def differences(method: str, data: str, trunk: str, images: int | None) -> str:
  """Why our number is not that of the papers': ", other trunk, other images"; "" where nothing is known.

  Args:
    trunk: as identity.trunk_of names it. images: of our test split.
  """
  theirs = TRUNKS.get(method.partition(" ")[0], "")
  other = bool(theirs) and (not trunk.startswith(theirs) or ", random" in trunk)
  return (", other trunk" if other else "") + (
      ", other images" if images not in (None, IMAGES.get(data)) else "")
