"""Method, network and optimiser of every autoencoder that Bercea et al. 2023 compare: {word: fill(config)}.

Each sets the published values of the sound form; `PARITY` has what the public code does instead.
"""

import ml_collections

from configs.fields import scores, trunk

_group = ml_collections.ConfigDict

# {word: {field: value}}; docs/ae_zoo.md explains each.
PARITY = {
    "ae_s": {"model.norm": "frozen", "model.slope": 1.0},
    "ae_d": {"model.norm": "frozen", "model.slope": 1.0},
    "vae": {"method.sample": False, "method.kl": "published"},
    "beta_vae": {"method.score.sample": True, "method.validation_calls": 16},
    "aae": {"model.init": "torch", "train.early_stop": 0},
    "si_vae": {"model.norm": "frozen", "model.skip_by_identity": True, "method.zero_pass": True,
               "method.score.sample": True, "optim.schedule": "constant"},
    "dae": {"optim.schedule": "constant"},
}


def _score(method) -> None:
  method.score = score = _group()
  score.image_score = "mean"       # mean, max, top1
  score.weights_positive = score.weights_negative = ()  # per channel; () = 1
  scores.add(score)                # kind: another score of the same reconstruction


def _expression(method, loss: str) -> None:
  method.loss = loss               # l1, l2, ssim, perceptual, with factors: "l2 + 0.2*perceptual"
  method.layers = "r11+r21+r31+r41"  # of perceptual, a mean over them
  method.update(trunk.defaults())
  method.vgg_stats = "running"     # not used: the features are compared as they are


def _ae(config, latent: int) -> None:
  config.method = method = _group()
  method.name = "ae"
  _expression(method, "l1")
  _score(method)
  config.model = model = _group()
  model.widths = (32, 64, 128)     # and the last one once more
  model.strides = (2, 2, 2, 2)
  model.kernel = 5
  model.norm = "batch"             # batch, frozen (as published), group, none
  model.act = "leaky_relu"         # leaky_relu, swish, relu
  model.slope = 0.01               # of leaky_relu; published: 1
  model.upsampling = "transposed"  # transposed or resize
  model.latent = latent            # numbers of a dense code; 0 = the code is a map
  model.squeeze = 16               # channels of the map that becomes the dense code
  model.dtype = "float32"
  config.train.update(epochs=1000, batch_size=64)


def _vae(config) -> None:
  config.method = method = _group()
  method.name = "vae"
  method.sample = True             # draw the code in training; published: its mean
  method.kl = "exact"              # exact or published
  method.rec_log_std = 0.0         # log standard deviation of the likelihood
  _score(method)
  config.model = _group({"widths": (16, 32, 64, 256, 256), "latent": 256, "dtype": "float32"})
  config.optim.plateau_patience = 10  # validations without a gain before the rate falls; 0 = never
  config.optim.plateau_factor = 0.1
  config.train.update(epochs=500, batch_size=128)


def _beta_vae(config) -> None:
  config.method = method = _group()
  method.name = "beta_vae"
  _expression(method, "l2")
  method.regulariser = "capacity"  # capacity or beta
  method.beta = 4.0                # of regulariser=beta
  method.gamma = 2.0               # of the capacity; Burgess et al.: 1000
  method.max_capacity = 50.0       # nats, reached after
  method.capacity_steps = 1e5      # ... as many steps
  method.kl_weight = 0.008
  method.validation_calls = 0      # added to the step at each validation; published: its 16 batches
  _score(method)
  method.score.sample = False      # draw the code, once for all images; published: anew at every test
  config.model = _group({"latent": 32, "width": 32, "hidden": 256, "dtype": "float32"})
  config.train.update(epochs=1000, batch_size=64)


def _aae(config) -> None:
  config.method = method = _group()
  method.name = "aae"
  method.rec_weight = method.latent_weight = 2.0
  _score(method)
  config.model = model = _group()
  model.width, model.latent = 64, 256
  model.norm = "batch"             # batch (as published), frozen, group, none
  model.init = "dcgan"             # dcgan N(0, 0.02^2), or torch as published
  model.dtype = "float32"
  config.optim.b1 = 0.5
  config.optim.update(schedule="piecewise", factor=0.25, boundaries=(89, 179, 269, 359, 449))  # epochs
  config.train.update(epochs=500, batch_size=128)


def _si_vae(config) -> None:
  config.method = method = _group()
  method.name = "si_vae"
  method.beta_rec, method.beta_kl, method.beta_neg, method.gamma = 1.0, 1.0, 256.0, 1e-8
  method.zero_pass = False         # published: statistics begin after a black image
  _score(method)
  method.score.sample = False      # draw the code, once for all images; published: anew at every test
  config.model = model = _group()
  model.widths, model.latent = (64, 128, 256, 512, 512), 128
  model.skip_by_identity = False   # published: 512 and 512 in the list are different numbers
  model.norm = "batch"             # batch, frozen (as published), group, none
  model.dtype = "float32"
  config.optim.update(lr=5e-5, schedule="piecewise", factor=0.1, boundaries=(350,))  # epochs
  config.train.update(epochs=1000, batch_size=32)


def _dae(config) -> None:
  config.method = method = _group()
  method.name = "dae"
  method.loss = "l1"               # over all pixels: an expression of l1, l2, ssim
  method.noise = _group({"noise_res": 16, "noise_std": 0.2, "noise_roll": "batch"})
  _score(method)
  method.score.update(foreground=False, erosion=0, median=0, saturation=0.0, guided=0, guided_eps=1e-3,
                      guide_channel=0, gaussian=0.0, test_noise_draws=0, test_noise_res=16,
                      test_noise_std=0.2, test_noise_mirror=0)
  config.model = _group({"depth": 4, "wf": 6, "dtype": "float32", "precision": "", "remat": False,
                         "norm_kernel": "plain"})
  config.optim.update(lr=1e-4, schedule="cosine_cyclic", half_period=100, weight_decay=1e-5, clip=0.0,
                      amsgrad=True)
  config.train.update(epochs=1000, batch_size=16)


FILL = {"ae_s": lambda c: _ae(c, 0), "ae_d": lambda c: _ae(c, 128), "vae": _vae, "beta_vae": _beta_vae,
        "aae": _aae, "si_vae": _si_vae, "dae": _dae}

# {word: fields of networks for 32 to 64 px on a CPU}
NARROW = {
    "ae_s": {"widths": (8, 16, 32)}, "ae_d": {"widths": (8, 16, 32), "latent": 32, "squeeze": 8},
    "vae": {"widths": (8, 16, 32), "latent": 32}, "beta_vae": {"width": 16, "hidden": 64, "latent": 16},
    "aae": {"width": 8, "latent": 32}, "si_vae": {"widths": (8, 16, 32), "latent": 32},
    "dae": {"depth": 3, "wf": 3}}
