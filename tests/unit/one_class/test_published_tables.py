"""What the publications chose for each class, view and experiment: all rows of the tables in configs.

config_values.json compares one or two rows of each; here stand all, in the words of the publications' tables.
"""

import hashlib
import importlib
import json

import pytest

_NATURAL = ("cifar10", "svhn")


def of(name, argument):
  return importlib.import_module(f"configs.{name}").get_config(argument)


# class: bottleneck, learning rate, layers, iterations, seeds
_DPA = {
    "cifar10": """
      0: 32 0.002 r32 5666 7970 9042 8942;     1: 8 0.01 r42 7333 2255 7178 3109
      2: 16 0.005 r42 5000 4930 8728 9511;     3: 256 0.0002 r32 4666 7712 8880 5958
      4: 16 0.005 r32 6666 7322 7735 4610;     5: 8 0.01 r42 4666 9693 3407 4064
      6: 64 0.001 r32 3666 3231 8188 7677;     7: 8 0.01 r42 7666 7749 1934 4050
      8: 8 0.01 r42 8000 7159 9433 7116;       9: 8 0.01 r42 5000 2058 9145 5694""",
    "svhn": """
      0: 256 0.0002 r42 25333 2420 6274 6109;  1: 16 0.005 r32+r42 16666 2237 9434 362
      2: 16 0.005 r32+r42 15333 3874 673 2780; 3: 32 0.002 r42 9666 7706 5710 3340
      4: 16 0.005 r32+r42 10333 5384 2530 901; 5: 32 0.002 r32+r42 8333 6373 7318 9479
      6: 32 0.002 r32+r42 7333 8415 8881 8227; 7: 16 0.005 r32+r42 12000 2451 1190 606
      8: 16 0.005 r42 6666 8176 1770 8599;     9: 64 0.001 r42 18000 9918 826 4465"""}
_WIDTHS = {"8": (8,) * 4, "16": (16,) * 4, "32": (32,) * 4, "64": (32, 64, 64, 64), "256": (32, 64, 128, 256)}
_GROWS = "8:r12, 16:r22, 32:r32"
_DPA_NIH = {  # view, experiment: bottleneck, width or widths, learning rate, batch, layers, iterations, seeds
    "AP": ((64,) * 5, 0.0005, 56, "r32", 27000, (8350, 3255, 6638)),
    "PA": ((16,) * 5, 0.002, 128, "r32", 33000, (2489, 5709, 9424)),
    "subset": ((16,) * 5, 0.002, 128, "r42", 16000, (813, 4535, 5080)),
    "AP,exp=pg": ((32, 32, 64, 64, 64), 0.0005, 56, f"{_GROWS}, 64:r32", 7000, (9449, 6402, 8696)),
    "PA,exp=pg": ((16,) * 5, 0.001, 128, f"{_GROWS}, 64:r32", 10000, (7983, 5260, 4011)),
    "subset,exp=pg": ((16,) * 5, 0.001, 128, f"{_GROWS}, 64:r42", 3500, (5159, 6472, 7581)),
    "AP,exp=unsupervised": ((64,) * 5, 0.0005, 56, "r32", 57666, (4874, 2952, 4560)),
    "PA,exp=unsupervised": ((64,) * 5, 0.0005, 56, "r32", 64333, (1810, 748, 3013)),
    "subset,exp=unsupervised": ((64,) * 5, 0.0005, 56, "r42", 24333, (9066, 4129, 2258)),
    "AP,exp=L1_unsupervised": ((64,) * 5, 0.0005, 56, None, 28333, (1835, 7514, 4572)),
    "PA,exp=L1_unsupervised": ((64,) * 5, 0.0005, 56, None, 31000, (9821, 5264, 3338)),
    "subset,exp=L1_unsupervised": ((64,) * 5, 0.0005, 56, None, 32333, (5107, 8447, 6076)),
    "AP,exp=with_L1": ((64,) * 5, 0.0005, 56, "r32", 27000, (8350, 3255, 6638)),
    "subset,exp=with_L1": ((16,) * 5, 0.002, 128, "r32+r42", 16000, (8681, 2355, 8817)),
    "PA,exp=with_adversarial_L1": ((16,) * 5, 0.0002, 128, "r32", 33000, (2489, 5709, 9424)),
    "subset,exp=with_adversarial_L1": ((16,) * 5, 0.0002, 128, "r42", 16000, (8681, 2355, 8817))}
_PIAD = {  # classes 0 to 9: preset, layers, thousands of iterations
    "cifar10": "L r32 10, S r32 80, L r32 70, L r42 10, L r32 10, "
               "L r32 10, S r42 90, L r42 10, L r42 10, L r42 10",
    "svhn": "S r42 40, S r42 100, S r42 100, L r42 10, S r42 100, "
            "S r32 70, L r32 40, S r42 100, S r42 70, S r32 40"}
_PIAD_NIH = {"AP": ("r32+r42", 40_000), "PA": ("r32+r42", 20_000), "subset": ("r42", 40_000)}
_EPOCHS = {"cifar10": (3, 3, 3, 4, 4, 1, 2, 2, 2, 2), "svhn": (2, 5, 5, 6, 9, 5, 7, 4, 3, 8)}
_TAPS = {"cifar10": "7a 7a 7b 7a all all 7a 7b 7b 7a", "svhn": "7a 7a all 7a 7a 7a 6a all 7a 7a"}
_TAP = {"6a": "mixed_6a", "7a": "mixed_7a", "7b": "conv2d_7b", "all": "concat"}
_GREY = {"deep_geo": (0, 2, 5, 7, 9), "deep_if": (0, 3, 5, 7, 8, 9)}


@pytest.mark.parametrize("data", _NATURAL)
def test_dpa_of_every_class(data):
  rows = dict(row.strip().split(": ") for row in _DPA[data].replace("\n", ";").split(";") if row.strip())
  assert sorted(rows) == list("0123456789")
  for cls, row in rows.items():
    latent, rate, layers, steps, *seeds = row.split()
    run = int(cls) % 3
    c = of(f"dpa_{data}", f"cls={cls},run={run}")
    assert (c.model.latent_dim, c.optim.lr, c.method.layers, c.train.steps, c.seed) == (
        int(latent), float(rate), layers, int(steps), int(seeds[run])), cls
    listed = importlib.import_module(f"configs.dpa_{data}").PUBLISHED[int(cls)][3]
    assert listed == tuple(map(int, seeds)), cls
    assert (c.model.enc_widths, c.model.dec_widths) == (_WIDTHS[latent], ()), cls  # () = reversed
    assert (c.train.batch_size, c.data.normal_class, c.data.to_grayscale) == (128, int(cls), data == "svhn")


@pytest.mark.parametrize("case", _DPA_NIH)
def test_dpa_of_every_view(case):
  widths, rate, batch, layers, steps, seeds = _DPA_NIH[case]
  view = case.partition(",")[0]
  for run, seed in enumerate(seeds):
    c = of("dpa_nih", f"view={case},run={run}")
    assert (c.seed, c.optim.lr, c.train.batch_size, c.train.steps) == (seed, rate, batch, steps)
  assert (tuple(c.model.enc_widths), tuple(c.model.dec_widths)) == (widths, ())  # () = reversed
  assert layers is None or c.method.layers == layers
  assert c.data.view == view
  assert c.data.equalize_hist == (view == "AP" and "unsupervised" not in case)


@pytest.mark.parametrize("data", _NATURAL)
def test_piad_of_every_class(data):
  for cls, row in enumerate(_PIAD[data].split(", ")):
    preset, layers, thousands = row.split()
    c = of(f"piad_{data}", f"cls={cls}")
    assert (c.method.layers, c.train.steps) == (layers, 1000 * int(thousands)), cls
    assert c.model.latent_dim == (256 if preset == "L" else 128), cls
    c = of(f"piad_{data}", f"cls={cls},exp=reproduce")
    assert c.train.steps == 100_000 and c.method.layers == "r42"


@pytest.mark.parametrize("view", _PIAD_NIH)
def test_piad_of_every_view_and_experiment(view):
  c = of("piad_nih", f"view={view}")
  assert (c.method.layers, c.train.steps) == _PIAD_NIH[view]
  c = of("piad_nih", f"view={view},exp=reproduce")
  assert (c.method.layers, c.train.steps) == ("r42", 100_000)
  assert tuple(c.model.enc) == (32, 64, 128, 256, 256) and c.model.latent_dim == 256


@pytest.mark.parametrize("data", _NATURAL)
def test_geo_and_if_of_every_class(data):
  for cls, (epochs, tap) in enumerate(zip(_EPOCHS[data], _TAPS[data].split(), strict=True)):
    geo, forest = (of(f"{method}_{data}", f"cls={cls}") for method in ("deep_geo", "deep_if"))
    assert (geo.train.epochs, forest.method.taps) == (epochs, _TAP[tap]), cls
    assert of(f"deep_geo_{data}", f"cls={cls},exp=reproduce").train.epochs == 3
    assert of(f"deep_if_{data}", f"cls={cls},exp=reproduce").method.taps == "concat"
    for method, config in (("deep_geo", geo), ("deep_if", forest)):
      assert config.data.to_grayscale == (data == "svhn" and cls in _GREY[method]), (method, cls)


@pytest.mark.parametrize("method, rows", [
    ("deep_geo", {"AP": (2, 224, False), "PA": (1, 224, True), "subset": (1, 300, False)}),
    ("deep_if", {"AP": ("mixed_7a", 224, True), "PA": ("conv2d_1a", 300, True),
                 "subset": ("mixed_7a", 224, False)})])
def test_geo_and_if_of_every_view(method, rows):
  value = lambda c: c.train.epochs if method == "deep_geo" else c.method.taps
  for view, row in rows.items():
    c = of(f"{method}_nih", f"view={view}")
    assert (value(c), c.data.crop_size, c.data.equalize_hist, c.data.resize) == (*row, 64)
    c = of(f"{method}_nih", f"view={view},exp=reproduce")
    assert (value(c), c.data.crop_size, c.data.equalize_hist, c.data.resize) == (
        3 if method == "deep_geo" else "concat", 224, False, 64)


@pytest.mark.parametrize("method, digest", [("piad", "4e8b0fa483fa"), ("deep_geo", "00a25a71b64b"),
                                            ("deep_if", "500c71b66bff")])
def test_seeds_of_every_run_are_those_that_were_copied_once(method, digest):
  """tests/parity/test_published_runs.py reads them in the published files; a digest says that one changed."""
  modules = [importlib.import_module(f"configs.{method}_{data}") for data in (*_NATURAL, "nih", "camelyon16")]
  seeds = [getattr(m, "SEEDS", None) or m.PUBLISHED for m in modules]
  assert hashlib.sha256(json.dumps(seeds).encode()).hexdigest()[:12] == digest
