"""Scores and detection metrics of MorphAEus' evaluation, stored: exact in float64, SSIM to 1e-5."""

import numpy as np
import pytest

from medae_jax.metrics import detection, roc, similarity
from tests.golden_cases import file_cases


@pytest.fixture(scope="module", params=file_cases("morphaeus", "metrics*.npz"))
def case(request):
  with np.load(request.param) as arrays:
    return dict(arrays)


def test_scores_of_images(case):
  image, recon = case["images"][..., None], case["recons"][..., None]
  error = similarity.mae(image, recon)
  np.testing.assert_allclose(error, case["residual_mean"], atol=1e-6)
  np.testing.assert_allclose(error, case["l1"], atol=1e-6)
  np.testing.assert_allclose(similarity.ssim(image, recon), case["ssim"], atol=1e-5)


@pytest.mark.parametrize("ties", ["", "_ties"])
def test_detection(case, ties):
  scores = case["scores_ties"] if ties else case["residual_mean"]
  labels = case["labels"]
  near = lambda name, value: np.testing.assert_allclose(value, case[name + ties], rtol=0, atol=1e-9)
  counts = detection.sorted_counts(scores, labels)
  near("auroc", detection.auroc(counts))
  near("auprc", detection.average_precision(counts))
  for share in (95, 99):
    fpr, cut = roc.fpr_at(scores, labels, share / 100)
    near(f"fpr{share}", fpr)
    near(f"th{share}", cut)


@pytest.mark.parametrize("ties", ["", "_ties"])
def test_bootstrap(case, ties):
  scores, labels = case["scores_ties"] if ties else case["residual_mean"], case["labels"]
  seeds = sorted(int(k.rsplit("_", 1)[1]) for k in case if k.startswith("bootstrap_idx_"))
  found = {"auroc": [], "auprc": [], "fpr95": []}
  for seed in seeds:
    i = case[f"bootstrap_idx_{seed}"]
    counts = detection.sorted_counts(scores[i], labels[i])
    found["auroc"].append(detection.auroc(counts))
    found["auprc"].append(detection.average_precision(counts))
    found["fpr95"].append(roc.fpr_at(scores[i], labels[i], 0.95)[0])
  for name, values in found.items():
    np.testing.assert_allclose(values, case[f"bootstrap_{name}{ties}"], rtol=0, atol=1e-9)
  spread = roc.published_spread(scores, labels, seeds)  # draws the stored indices itself
  assert spread["auroc_mean"] == pytest.approx(case[f"bootstrap_auroc_mean{ties}"], abs=1e-9)
  assert spread["auroc_std"] == pytest.approx(case[f"bootstrap_auroc_std{ties}"], abs=1e-9)


def test_pixels(case):
  counts = detection.sorted_counts(case["pixel_scores"], case["pixel_mask"])
  assert float(detection.average_precision(counts)) == pytest.approx(float(case["pixel_auprc"]), abs=1e-9)
