r"""PIAD on CIFAR-10, one class against the rest (Tuluptceva 2019; baseline of the DPA paper).

  python launch.py --workdir=W --config=configs/piad_cifar10.py:cls=0,root=DATA,vgg=PATH
PATH: vgg19-dcbb9e9d.pth of torchvision.
DATA: a prepared TFDS folder, the official binary files, or an .npz
(data_pipelines/datasets/natural.py).

Arguments: cls=0..9 (normal class); exp=with_cv (chosen with one kind of validation anomaly),
reproduce (the authors' defaults) or paper2019 (code and settings of the PIAD paper, with
ablation=mse, mse_gradient_norms, perceptual or perceptual_l1); run=0..2 (published seed), seed
(another);
fold=0..2 with lists=FOLDER; val=0.05 holds out images for thresholds.
  (none)   the published run: 10,000 to 100,000 iterations of 3 x 32 images. paper2019, all ten
           classes: mean AUROC 0.799 (the paper); classes .837 .876 .753 .602 .808 .713 .839 .842
           .867 .849. The 2021 rows per class could not be confirmed and are not repeated.
  :small   real data on the CPU: a narrow *random* VGG19; 1000 steps of about a second on one core.
  :demo    synthetic textures, 3-5 minutes on one CPU core: shows the whole way, not a detector
           (test AUROC 0.57 with random VGG19 after 500 steps).
  :smoke   synthetic textures, 4 iterations, seconds; learns nothing.
"""

from configs import common
from configs.fields import dpa, piad, trunk
from data_pipelines.datasets import natural
from data_pipelines.errors import UserError
from data_pipelines.fields import changed

# preset: (latent_dim, encoder, generator, image critic, latent critic). The files list five widths
# for four blocks; these are the ones in use.
PRESETS = {"L": (256, (64, 128, 256, 256), (256, 256, 128, 64), (64, 128, 256, 256), (1024, 1024)),
           "S": (128, (64, 128, 128, 128), (128, 128, 128, 64), (64, 128, 128, 128), (512, 512)),
           "author": (256, (64, 128, 256, 256), (256, 256, 128, 64), (32, 64, 128, 128),
                      (1024, 1024))}
# class: (preset, layer, iterations), seeds of with_cv and of reproduce.
TUNED = {0: ("L", "r32", 10000), 1: ("S", "r32", 80000), 2: ("L", "r32", 70000),
         3: ("L", "r42", 10000), 4: ("L", "r32", 10000), 5: ("L", "r32", 10000),
         6: ("S", "r42", 90000), 7: ("L", "r42", 10000), 8: ("L", "r42", 10000),
         9: ("L", "r42", 10000)}
SEEDS = {
    "with_cv": ((4161, 2848, 2869), (2030, 7110, 4860), (4181, 9715, 4425), (6211, 5745, 1593),
                (3440, 6810, 9941), (5813, 3827, 8115), (3710, 6865, 8009), (2435, 6315, 7610),
                (1529, 8480, 7276), (5272, 7132, 7968)),
    "reproduce": ((3535, 5049, 9755), (7903, 6280, 1100), (6373, 5833, 3656), (556, 7114, 9690),
                  (8505, 4224, 7864), (5995, 1214, 5642), (9163, 2407, 3227), (3491, 6985, 8250),
                  (7879, 7886, 630), (3045, 4525, 3656))}
EXPERIMENTS = ("with_cv", "reproduce", "paper2019")


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring."""
  return build(arguments(arg), TUNED, SEEDS, "cifar10", gray=False)


def arguments(arg):
  """The arguments that CIFAR-10 and SVHN share."""
  return common.parse_arg(arg, demo=False, smoke=False, small=False, cls=0, exp="with_cv",
                          ablation="", run=0, seed=-1, fold=-1, val=0.0, root="", lists="", vgg="")


def build(args, tuned, seeds, dataset, gray):
  """The locked config of one class; SVHN shares it (configs/piad_svhn.py).

  Args:
    gray: whether with_cv reads grey images.

  Raises:
    ValueError: cls, run, exp or ablation out of range.
  """
  if args.exp not in EXPERIMENTS or not 0 <= args.cls <= 9 or not 0 <= args.run <= 2:
    raise UserError(f"config arguments exp={args.exp}, cls={args.cls}, run={args.run}: exp is "
                    f"{', '.join(EXPERIMENTS)}, cls 0 to 9, run 0 to 2")
  config = piad.base()
  preset, layer, steps = tuned[args.cls] if args.exp == "with_cv" else ("author", "r42", 100000)
  if args.seed >= 0:
    config.seed = args.seed
  else:                            # the 2019 code sets no seed
    config.seed = args.run if args.exp == "paper2019" else seeds[args.exp][args.cls][args.run]
  keys = ("latent_dim", "enc", "dec", "critic_image", "critic_latent")
  config.model.update(dict(zip(keys, PRESETS[preset])))
  config.method.layers = layer
  trunk.choose(config.method, args.vgg)
  config.train.steps = steps
  if args.exp == "paper2019":
    piad.of_2019(config)
  if args.ablation and args.exp != "paper2019":
    raise UserError("config argument ablation belongs to exp=paper2019")
  piad.ablate(config, args.ablation)
  gray = gray and args.exp == "with_cv"
  config.model.channels = 1 if gray else 3
  config.data = changed(
      natural.defaults(), dataset=dataset, root=args.root, normal_class=args.cls, to_grayscale=gray,
      lists_root=args.lists)
  piad.validate(config, args.fold, args.val)
  if args.small:
    small(config)
  if args.demo or args.smoke:
    piad.synthetic(config, smoke=args.smoke)
  return piad.finish(config)


def small(config):
  """Real images on two CPU cores: `narrow`, and some anomalies in val to choose the checkpoint by."""
  narrow(config)
  config.data.update(val_fraction=0.1, val_anomalies=20)


def narrow(config):
  """Narrow networks for two CPU cores, a random narrow trunk (not VGG19's weights); leaves the data alone."""
  if dpa.random_trunk(config.method):
    config.method.vgg_widths = (16, 32, 64, 128, 128)
  config.method.layers = "r32" if config.method.layers != "image" else "image"
  config.method.policy.every = 20
  config.model.update(latent_dim=64, enc=(16, 32, 64, 64), dec=(64, 64, 32, 16),
                      critic_image=(16, 32, 32, 32), critic_latent=(128, 128))
  config.train.update(steps=1000, batch_size=16, eval_every=250, save_every=500,
                      eval_batch_size=100,
                      best_metric="val/image_auroc", best_mode="max")
  config.eval.update(splits=("val", "test"), batch_size=100)
