"""Noisy-annotation training step in PyTorch (methods of Mirikharaji 2019): double backward, SGD."""

import torch
from torch import nn
from torch.func import functional_call
import torch.nn.functional as F

from benchmarks.peers.options import prepare


class Layers(nn.Module):
  """A block of the published network under its names ("down1.layer.0", ...)."""

  def __init__(self, i, o, up=0):
    super().__init__()
    parts = [nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.Conv2d(o, o, 3, padding=1), nn.ReLU()]
    self.layer = nn.Sequential(*parts, *([nn.ConvTranspose2d(o, up, 2, 2), nn.ReLU()] if up else []))

  def forward(self, x):
    return self.layer(x)


class UNet(nn.Module):
  """Logits [B,1,H,W]; sides are multiples of 16."""

  def __init__(self, channels, w):
    super().__init__()
    self.down1, self.down2 = Layers(channels, w), Layers(w, 2 * w)
    self.down3, self.down4 = Layers(2 * w, 4 * w), Layers(4 * w, 8 * w)
    self.center = Layers(8 * w, 16 * w, 8 * w).layer
    self.up1, self.up2 = Layers(16 * w, 8 * w, 4 * w), Layers(8 * w, 4 * w, 2 * w)
    self.up3 = Layers(4 * w, 2 * w, w)
    self.up4 = nn.Sequential(nn.Conv2d(2 * w, w, 3, padding=1), nn.Conv2d(w, w, 3, padding=1))
    self.output = nn.Conv2d(w, 1, 1)

  def forward(self, x):
    skips = []
    for down in (self.down1, self.down2, self.down3, self.down4):
      x = down(F.max_pool2d(x, 2) if skips else x)
      skips.append(x)
    x = self.center(F.max_pool2d(x, 2))
    for up in (self.up1, self.up2, self.up3, self.up4):
      x = up(torch.cat([x, skips.pop()], 1))
    return self.output(x)


def build(setting, tensors, batch, device):
  """step() -> weighted loss of one training step on the given batches.

  Args:
    setting: width, channels, lr, variant. tensors: {name: numpy}, the initial state dict.
    batch: image, clean_image [B,H,W,C] standardised, mask, clean_mask [B,H,W,1]; numpy.
    device: "cpu" or "gpu".
  """
  how = prepare(setting["variant"], device)
  place = torch.device("cuda" if device == "gpu" else "cpu")
  net = UNet(setting["channels"], setting["width"])
  net.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()})
  memory = torch.channels_last if how["channels_last"] else torch.contiguous_format
  net = net.to(place, memory_format=memory)
  image, mask, clean_image, clean_mask = (
      torch.from_numpy(batch[k]).to(place).permute(0, 3, 1, 2).contiguous(memory_format=memory)
      for k in ("image", "mask", "clean_image", "clean_mask"))
  sgd = torch.optim.SGD(net.parameters(), lr=setting["lr"], momentum=0.99, weight_decay=5e-5,
                        **({"fused": True} if how["fused"] else {}))

  def losses(params, x, y):
    with how["autocast"]():
      logits = functional_call(net, params, x)
    return F.binary_cross_entropy_with_logits(logits.float(), y, reduction="none")
  losses = how["compile"](losses)

  def step():
    params = dict(net.named_parameters())
    eps = torch.zeros_like(mask, requires_grad=True)
    virtual = torch.autograd.grad((eps * losses(params, image, mask)).sum(), list(params.values()),
                                  create_graph=True)
    moved = {k: p - setting["lr"] * g for (k, p), g in zip(params.items(), virtual)}
    clean = losses(moved, clean_image, clean_mask).mean()
    weight = torch.relu(-torch.autograd.grad(clean, eps)[0]).detach()
    weight = weight / weight.sum().clamp_min(torch.finfo(torch.float32).tiny)
    sgd.zero_grad(set_to_none=True)
    loss = (weight * losses(params, image, mask)).sum()
    loss.backward()
    sgd.step()
    return loss.detach()
  return step
