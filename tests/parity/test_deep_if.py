"""deep_if against its golden vectors: trees, forests, and the images that the network is shown."""

import importlib
import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
import sklearn
from sklearn.metrics import roc_auc_score

from medae_jax.models import backbone
from medae_jax.models.layers import resample
from medae_jax.scores import forest
from medae_jax.weights import inception_resnet_v2
from tests.golden_cases import golden_files

COMPILED_FAST = True  # LLVM's passes take longer than the few steps

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


# ---------------------------------------------------------------------------------------- network
def _generated(parameters, seed):
  """The tensors of a manifest, drawn by the rule of the golden README and checked against its sums."""
  tensors = {}
  for entry in parameters:
    name, shape = entry["name"], entry["shape"]
    rng = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    if name.endswith("num_batches_tracked"):
      continue
    if name.endswith(".weight") and ".bn." not in name:
      value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith(".bn.weight"):
      value = rng.uniform(0.8, 1.2, shape)
    elif name.endswith("running_var"):
      value = rng.uniform(0.7, 1.3, shape)
    else:
      value = rng.standard_normal(shape) * (0.05 if name.endswith("conv2d.bias") else 0.1)
    tensors[name] = value.astype(np.float32)
    np.testing.assert_allclose(tensors[name].ravel()[0], entry["first"], rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(tensors[name].sum(dtype=np.float64), entry["sum"], rtol=1e-5, atol=1e-4)
  return tensors


@pytest.mark.slow
def test_inception_resnet_v2():
  """All eleven taps, pooled, at every size of the vectors: 2e-4 of the largest feature in float32."""
  net = backbone.get("inception_resnet_v2")
  for file in golden_files("deep_if", "inception_resnet_v2_synthetic*.npz"):
    manifest = json.loads(next(file.parent.glob(file.name.replace(
        "synthetic", "state_manifest").replace(".npz", ".json"))).read_text())
    tensors = _generated(manifest["parameters"], manifest["seed"])
    params = inception_resnet_v2.convert(tensors, net.shapes(net.taps))
    with np.load(file, allow_pickle=False) as g:
      assert tuple(g["layer_names"]) == net.taps
      assert list(g["layer_dims"]) == [net.widths[t] for t in net.taps]
      for key in sorted(k for k in g.files if k.endswith("/features_concat")):
        size, n = int(key.partition("/")[0].removeprefix("img")), len(g[key])
        image = np.random.RandomState(manifest["seed"] + size).uniform(-1, 1, (n, 3, size, size))
        image = image.astype(np.float32)
        np.testing.assert_allclose([image.sum(dtype=np.float64), image.flat[0], image.flat[-1]],
                                   g[f"img{size}/input_checksum"], rtol=1e-4)
        maps = jax.jit(lambda p, x: net.features(p, net.enter(x, -1, 1), net.taps, jnp.float32))(
            params, image.transpose(0, 2, 3, 1))
        assert [list(maps[t].shape[1:3]) for t in net.taps] == g[f"img{size}/spatial_hw"].tolist()
        ours = np.concatenate([np.asarray(maps[t]).mean((1, 2)) for t in net.taps], 1)
        np.testing.assert_allclose(ours, g[key], rtol=0, atol=2e-4 * np.abs(g[key]).max(), err_msg=key)


# ---------------------------------------------------------------------------------------- configs
def _published():
  """{"cifar10/reproduce": its final configuration} of deep_if."""
  found = {}
  for path in golden_files("protocol", "final_configs*.json"):
    found.update(json.loads(path.read_text()))
  return {k.removeprefix("deep_if/"): v for k, v in found.items() if k.startswith("deep_if/")}


@pytest.mark.parametrize("dataset", ["cifar10", "svhn", "camelyon16", "nih"])
def test_configs_are_the_published_ones(dataset):
  """Every class, run and experiment of Deep IF."""
  module, checked = importlib.import_module(f"configs.deep_if_{dataset}"), 0
  for name, found in _published().items():
    if not name.startswith(f"{dataset}/"):
      continue
    for cls, own in found["per_class"].items():
      which = {"nih": f"view={cls}", "camelyon16": "run=0"}.get(dataset, f"cls={cls}")
      want = {**found["common"], **own}
      for run, seed in enumerate(found["random_seed_by_class_and_run"][cls]):
        c = module.get_config(f"{which},exp={name.partition('/')[2]},run={run},weights=x.pth")
        assert c.seed == seed, (name, cls, run)
        _same(c, want, f"{name} {cls}")
        checked += 1
  assert checked


def _same(c, want, what):
  assert c.eval.batch_size == c.train.eval_batch_size == want["batch_size"], what
  assert c.method.taps == want["feature_extraction_type"], what
  assert (c.method.backbone, c.method.size) == ("inception_resnet_v2", 299), what
  for key, value in want.items():
    part, _, field = key.partition(".transform_kwargs.")
    if field:
      assert part and c.data[field] == value, (what, key)
