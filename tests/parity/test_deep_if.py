"""deep_if against its golden vectors: trees, forests, and the images that the network is shown."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
import sklearn
from sklearn.metrics import roc_auc_score

from medae_jax.models.layers import resample
from medae_jax.scores import forest
from tests.golden_cases import golden_files

_TREE = ("children_left", "children_right", "feature", "threshold", "n_node_samples")


def _forests():
  """(version of scikit-learn, {key: array} of a case) of every case of every archive."""
  for file in golden_files("deep_if", "isolation_forest*.npz"):
    with np.load(file, allow_pickle=False) as z:
      for case in sorted({k.split("/")[0] for k in z.files if "/" in k}):
        found = {k.partition("/")[2]: z[k] for k in z.files if k.startswith(f"{case}/")}
        yield str(z["sklearn_version"]), f"{file.stem}/{case}", found


def _scores(grown, case):
  """Our scores of the normal and of the anomalous rows, [2] arrays."""
  score = jax.jit(forest.score)
  return [np.asarray(score(grown, case[f"x_{kind}"])) for kind in ("normal", "anomaly")]


def test_stored_trees_give_the_stored_scores(float64):
  """Scoring alone: 1e-12. Higher means anomalous here, normal in the vectors."""
  checked = 0
  for _, name, case in _forests():
    if "tree_offsets" not in case:
      continue
    ends = case["tree_offsets"]
    trees = [tuple(case[k][a:b] for k in _TREE) for a, b in zip(ends[:-1], ends[1:])]
    grown = forest.from_trees(trees, int(case["max_samples"]))
    assert int(grown["depth"]) == case["max_depth"].max()
    for ours, kind in zip(_scores(grown, case), ("normal", "anomaly")):
      np.testing.assert_allclose(ours, -case[f"score_{kind}"], rtol=0, atol=1e-12, err_msg=name)
    checked += 1
  assert checked


def test_fitted_forests(float64):
  """The same scikit-learn with the same seed: 1e-12; otherwise as alike as two seeds are."""
  for version, name, case in _forests():
    seed = int(case["random_state"])
    grown = forest.fit(case["x_train"], trees=int(case["n_estimators"]), seed=max(seed, 0),
                       samples=int(case["max_samples"]))
    normal, anomalous = _scores(grown, case)
    theirs = np.concatenate([case["score_normal"], case["score_anomaly"]])
    ours = np.concatenate([normal, anomalous])
    if seed >= 0 and version == sklearn.__version__:
      np.testing.assert_allclose(ours, -theirs, rtol=0, atol=1e-12, err_msg=name)
    assert stats.spearmanr(ours, -theirs)[0] > 0.85, name
    label = np.repeat([0, 1], [len(normal), len(anomalous)])
    assert roc_auc_score(label, ours) == pytest.approx(float(case["roc_auc"]), abs=0.1), name


def test_images_are_resized_as_pillow_does():
  """32 and 64 to 299 pixels on the device, to the grey level; mean and deviation of what is shown."""
  for file in golden_files("deep_if", "image_preparation*.npz"):
    with np.load(file, allow_pickle=False) as g:
      pairs = {"rgb32": "rgb32_resized299_rows0_298_step13"} | {
          f"nih_{crop}_64": f"nih_{crop}_299_step13" for crop in ("crop224", "crop224_eq", "crop300_eq")}
      for small, large in pairs.items():
        image = g[small] if g[small].ndim == 3 else g[small][..., None]
        unit = resample.antialiased(jnp.asarray(image, jnp.float32)[None] / 255, (299, 299), eight_bit=True)
        np.testing.assert_allclose(255 * np.asarray(unit[0, ::13]).reshape(g[large].shape), g[large],
                                   atol=1e-3, err_msg=large)
        if small == "rgb32":
          x = np.asarray(2 * unit[0] - 1, np.float64)
          np.testing.assert_allclose([x.mean((0, 1)), x.std((0, 1))], g["rgb32_tensor_mean_std"],
                                     atol=3e-5)  # theirs are sums of 89,401 float32
