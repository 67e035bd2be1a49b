"""Groups of a config that are younger than the first runs: read_config adds them where they are missing."""

from __future__ import annotations

FORMATS = ("stablehlo", "weights", "safetensors", "saved_model", "savedmodel", "onnx", "onnx_fp16",
           "onnx_int8")
EXPORT = dict(
    formats=("stablehlo", "weights"),  # of FORMATS
    image_size=())                     # (rows, columns) to export for; () = those of training

BENCH = dict(
    repeats=5,                         # of every measurement
    seconds=1.0,                       # least time of a repeat
    stage="")                          # name of the training stage; "" = the last, the largest

SLIDE = dict(                          # group predict.slide: whole slides, see docs/slides.md
    mpp=0.0,                           # micrometres a pixel of the patches that the run was trained on; or
    magnification=0.0,                 # ... their magnification; both 0 = x10, x20 or x40 where data says so
    own_mpp=0.0,                       # of level 0, for slides that do not say it
    tile=0,                            # side of a tile in such pixels; 0 = that of the training's crops
    margin=0,                          # of it on each side: context, whose map is not used
    map="pixels",                      # pixels: the map of the method; tiles: a tile's score, all over it
    pixel=0,                           # tile pixels a pixel of the map; 0 = up to 8, of map=tiles the tile
    tissue=0.1,                        # least share of tissue in a tile that is looked at; 0 = all tiles
    top=0.01,                          # the slide's score: mean of this share of the highest tile scores
    fields=20,                         # hottest fields in the table and the picture; 0 = none
    least=4)                           # regions of fewer pixels of the map are left out

# Single fields that are younger, in groups that every run has.
YOUNGER_FIELDS: dict[str, dict] = {"predict": {"force": False}, "eval": {"choose_score": ()},
                                   "train": {"trackers": ()}}

YOUNGER: dict[str, dict] = {"export": EXPORT, "bench": BENCH}

# Of config.method.score, for every method that reconstructs: scores/reconstruction.py says what they are.
RECON_SCORE: dict = dict(
    kind="published",        # published, residual, ssim, l1_ssim, perceptual, equalised, mahalanobis
    image_score="mean",      # image score out of the map: mean, max, top1 (where kind is not published)
    window=7,                # side of the windows of structural similarity, odd
    alpha=0.84,              # of l1_ssim: share of 1 - SSIM
    trunk="vgg16",           # frozen network of perceptual, equalised, mahalanobis (or vgg19)
    trunk_weights="",        # PATH of its weights, or "random:SEED"; "" = none, and not these three
    trunk_widths=(64, 128, 256, 512, 512),  # of a random vgg19
    trunk_layers="r22+r33",  # maps that are compared
    fit=False,               # fit mahalanobis although it is not the score, so that val can choose it
    offer=False)             # also all other scores; evaluate sets it to choose
