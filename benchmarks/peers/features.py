"""Pooled features of a frozen VGG16 in PyTorch: resize, trunk without gradients, means of the maps."""

import torch
from torch import nn
import torch.nn.functional as F

from benchmarks import settings
from benchmarks.peers.options import prepare


class Trunk(nn.Module):
  """VGG16 up to the deepest tap; [B,3,H,W] in [-1, 1] -> means of the taps [B,D], float32."""

  def __init__(self, tensors, taps, size):
    super().__init__()
    self.taps, self.size = taps, size
    self.names, self.convs = settings.vgg16_layers(taps), nn.ModuleList()
    for name in self.names:
      weight = torch.from_numpy(tensors[f"{name}.weight"])
      conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
      conv.load_state_dict({"weight": weight, "bias": torch.from_numpy(tensors[f"{name}.bias"])})
      self.convs.append(conv)
    self.register_buffer("mean", torch.tensor(settings.BGR_MEAN, dtype=torch.float32).view(1, 3, 1, 1))

  def forward(self, x):
    x = F.interpolate(0.5 * x + 0.5, self.size, mode="bilinear", antialias=True)
    x = 255 * x.flip(1) - self.mean
    found, group = [], "1"
    for name, conv in zip(self.names, self.convs):
      if name[4] != group:
        x, group = F.max_pool2d(x, 2), name[4]
      x = F.relu(conv(x))
      if f"r{name[4]}{name[6]}" in self.taps:
        found.append(x.float().mean((2, 3)))
    return torch.cat(found, 1)


def build(setting, tensors, batch, device):
  """step() -> mean of the features of a batch. setting: taps, resized, variant."""
  how = prepare(setting["variant"], device)
  place = torch.device("cuda" if device == "gpu" else "cpu")
  memory = torch.channels_last if how["channels_last"] else torch.contiguous_format
  trunk = Trunk(tensors, setting["taps"].split("+"), setting["resized"]).eval().to(
      place, memory_format=memory)
  image = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).to(place).contiguous(memory_format=memory)

  def extract(image):
    with how["autocast"]():
      return trunk(image)
  extract = how["compile"](extract)

  @torch.inference_mode()
  def step():
    return extract(image).mean()
  return step
