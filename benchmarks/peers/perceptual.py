"""Deep perceptual autoencoder step in PyTorch: residual18 networks, relative VGG19 feature loss."""

import torch
from torch import nn
import torch.nn.functional as F

from benchmarks.peers.options import prepare

_CONVS = ((1, 1, 0), (1, 2, 2), (2, 1, 5), (2, 2, 7), (3, 1, 10), (3, 2, 12), (3, 3, 14),
          (3, 4, 16), (4, 1, 19), (4, 2, 21))  # group, index, place in torchvision's `features`


class Conv(nn.Module):
  """A convolution under the name "model.0", as the published state dict has it."""

  def __init__(self, i, o, size=3, padding=1):
    super().__init__()
    self.model = nn.Sequential(nn.Conv2d(i, o, size, padding=padding))

  def forward(self, x):
    return self.model(x)


class Res(nn.Module):
  """skip(x) + conv(lrelu(conv(resize(lrelu(x))))), resize: None, a pooling or an upsampling."""

  def __init__(self, i, o, resize=None):
    super().__init__()
    act = lambda: nn.LeakyReLU(0.2)
    first = Conv(i, o)
    first.model.append(act())
    self.model = nn.Sequential(act(), *([resize] if resize else []), first, Conv(o, o))
    skip = [Conv(i, o, 1, 0)] if i != o else []
    self.skipcon = nn.Sequential(resize, *skip) if resize else (skip or [nn.Identity()])[0]

  def forward(self, x):
    return self.skipcon(x) + self.model(x)


class Net(nn.Module):
  """Named blocks in sequence under "model"."""

  def __init__(self, blocks):
    super().__init__()
    self.model = nn.Sequential()
    for name, parts in blocks:
      self.model.add_module(name, nn.Sequential(*parts))

  def forward(self, x):
    return self.model(x)


def encoder(channels, w, size, latent):
  blocks = [(f"preprocess_res_{size}", [Conv(channels, w[0]), Res(w[0], w[0]), Res(w[0], w[0])])]
  for k, (a, b) in enumerate(zip(w, w[1:])):
    blocks.append((f"res_{size >> k}", [Res(a, b, nn.AvgPool2d(2)), Res(b, b)]))
  return Net([*blocks, ("res_4", [nn.LeakyReLU(0.2), Conv(w[-1], latent, 4, 0)])])


def decoder(channels, w, size, latent):
  blocks = [("res_4", [nn.LeakyReLU(0.2), Conv(latent, w[0], 4, 3)])]
  for k, (a, b) in enumerate(zip(w, w[1:])):
    blocks.append((f"res_{8 << k}", [Res(a, b, nn.Upsample(scale_factor=2)), Res(b, b)]))
  return Net([*blocks, (f"postprocess_res_{size}", [nn.LeakyReLU(0.2), Conv(w[-1], channels)])])


class Trunk(nn.Module):
  """Frozen VGG19 up to `layer` ("r32"), normalised features."""

  def __init__(self, tensors, layer, mean, std):
    super().__init__()
    self.layer = (int(layer[1]), int(layer[2]))
    self.convs = nn.ModuleList()
    for b, i, n in _CONVS:
      if (b, i) <= self.layer:
        weight = torch.from_numpy(tensors[f"features.{n}.weight"])
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
        conv.load_state_dict({"weight": weight, "bias": torch.from_numpy(
            tensors[f"features.{n}.bias"])})
        self.convs.append(conv.requires_grad_(False))
    shape = lambda a: torch.as_tensor(a, dtype=torch.float32).view(1, -1, 1, 1)
    for name, value in (("mean", mean), ("std", std), ("shift", (0.485, 0.456, 0.406)),
                        ("scale", (0.229, 0.224, 0.225))):
      self.register_buffer(name, shape(value))

  def forward(self, x):
    x = (0.5 * x.expand(-1, 3, -1, -1) + 0.5 - self.shift) / self.scale
    for k, conv in enumerate(self.convs):
      if k and _CONVS[k][0] != _CONVS[k - 1][0]:
        x = F.max_pool2d(x, 2)
      x = F.relu(conv(x))
    return (x.float() - self.mean) / self.std


def build(setting, tensors, batch, device):
  """step() -> loss. setting: widths, size, latent, channels, layer, lr, variant."""
  how = prepare(setting["variant"], device)
  place = torch.device("cuda" if device == "gpu" else "cpu")
  s, w = setting, list(setting["widths"])
  part = lambda name: {k[len(name):]: torch.from_numpy(v) for k, v in tensors.items()
                       if k.startswith(name)}
  enc = encoder(s["channels"], w, s["size"][0], s["latent"])
  dec = decoder(s["channels"], w[::-1], s["size"][0], s["latent"])
  enc.load_state_dict(part("enc."))
  dec.load_state_dict(part("dec."))
  trunk = Trunk(tensors, s["layer"], tensors["stats.mean"], tensors["stats.std"])
  memory = torch.channels_last if how["channels_last"] else torch.contiguous_format
  enc, dec, trunk = (n.to(place, memory_format=memory) for n in (enc, dec, trunk))
  image = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).to(place).contiguous(
      memory_format=memory)
  parameters = [*enc.parameters(), *dec.parameters()]
  adam = torch.optim.Adam(parameters, lr=s["lr"], **({"fused": True} if how["fused"] else {}))

  def loss_fn(image):
    with how["autocast"]():
      recon = dec(enc(image))
      with torch.no_grad():
        real = trunk(image)
      fake = trunk(recon)
    return ((real - fake).abs().mean((1, 2, 3)) / real.abs().mean((1, 2, 3))).mean()
  loss_fn = how["compile"](loss_fn)

  def step():
    adam.zero_grad(set_to_none=True)
    loss = loss_fn(image)
    loss.backward()
    adam.step()
    return loss.detach()
  return step
