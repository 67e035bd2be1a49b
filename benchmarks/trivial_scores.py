r"""Image AUROC of scores that need no network: what a one-class method has to beat.

  python -m benchmarks.trivial_scores configs/dpa_cifar10.py:small,cls=0,root=FOLDER [CONFIG ...]
Prints a Markdown table: test AUROC with its 95 % interval (bootstrap over patients or groups).
  mean, std, laplacian, entropy, jpeg   medae_jax/scores/trivial.py, the range that of the training images
  distance     squared distance to the mean training image
  pca16        squared residual after projection on 16 principal components of the training images
Nothing is fitted but mean image and components, on the training images of the config's split. Which
end of mean, std, laplacian, entropy and jpeg is anomalous is read off the validation split (its AUROC
below 0.5: the sign is turned); the two residuals are large where something is anomalous.
"""

from __future__ import annotations

import sys

import numpy as np
from sklearn.metrics import roc_auc_score

from data_pipelines import dataset as datasets
from medae_jax.core import places
from medae_jax.metrics import bootstrap, detection
from medae_jax.scores import trivial

COMPONENTS, RESAMPLES = 16, 1000


def scores(images: np.ndarray, trained: np.ndarray) -> dict[str, np.ndarray]:
  """{name: [N]} of images [N,H,W,C], given the training images [M,H,W,C]."""
  flat = lambda x: x.reshape(len(x), -1).astype(np.float64)
  mean = flat(trained).mean(0)
  _, _, axes = np.linalg.svd(flat(trained) - mean, full_matrices=False)
  rest = flat(images) - mean
  axes = axes[:COMPONENTS]
  return {**trivial.scores(images, (trained.min(), trained.max())), "distance": (rest ** 2).mean(1),
          "pca16": ((rest - rest @ axes.T @ axes) ** 2).mean(1)}


def table(config) -> dict[str, tuple[float, list[float] | None]]:
  """{score: (test AUROC, its 95 % interval)} of a config's data.

  Raises:
    ValueError: the data have no labelled val split.
  """
  data = datasets.open_dataset(config.data, config.seed)
  if "val" not in data.splits:
    raise ValueError(f"{data.name} has no val split, which gives the scores their sign")
  read = lambda source: source.read(np.arange(len(source)))
  trained, val, test = read(data.train())["image"], read(data.split("val")), read(
      data.split("test"))
  on_val, on_test = scores(val["image"], trained), scores(test["image"], trained)
  source, found = data.split("test"), {}
  groups = [str(source.meta(i).get("group", i)) for i in range(len(source))]
  _, group = np.unique(groups, return_inverse=True)
  draws = bootstrap.resample_weights(int(group.max()) + 1, RESAMPLES)
  for name, value in on_test.items():
    if name in trivial.NAMES and roc_auc_score(val["label"], on_val[name]) < 0.5:
      value = -value
    spread = [float(detection.auroc(detection.sorted_counts(value, test["label"], w[group])))
              for w in draws]
    found[name] = float(roc_auc_score(test["label"], value)), bootstrap.interval(spread)
  return found


def main(names: list[str]) -> None:
  head = None
  for name in names:
    path, _, arg = name.partition(":")
    found = table(places.config_module(path).get_config(arg))
    if head is None:
      head = ["config", *found]
      print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    cells = [f"{a:.3f}" + (f" ({ci[0]:.3f}-{ci[1]:.3f})" if ci else "") for a, ci in found.values()]
    print("| " + " | ".join([name, *cells]) + " |", flush=True)


if __name__ == "__main__":
  main(sys.argv[1:])
