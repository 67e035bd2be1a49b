"""DAE training step in PyTorch (methods of Kascenas 2022): noise, U-Net, masked loss, AMSGrad."""

import torch
from torch import nn
import torch.nn.functional as F

from benchmarks.peers.options import prepare


def groups(channels: int) -> int:
  """The middle divisor."""
  divisors = [d for d in range(1, channels + 1) if channels % d == 0]
  return divisors[len(divisors) // 2]


class WSConv(nn.Conv2d):
  """3x3 convolution whose kernel is standardised per output channel (unbiased deviation)."""

  def forward(self, x):
    w = self.weight
    w = w - w.mean(dim=(1, 2, 3), keepdim=True)
    w = w / (w.flatten(1).std(dim=1).view(-1, 1, 1, 1) + 1e-5)
    return F.conv2d(x, w.to(x.dtype) if x.dtype != w.dtype else w, self.bias)


def block(i: int, o: int) -> nn.Sequential:
  """Parameters at 1, 3, 5, 7, as in the published state dict."""
  half = lambda a: [nn.ReflectionPad2d(1), WSConv(a, o, 3), nn.SiLU(), nn.GroupNorm(groups(o), o)]
  return nn.Sequential(*half(i), *half(o))


class Level(nn.Module):

  def __init__(self, i, o):
    super().__init__()
    self.block = block(i, o)

  def forward(self, x):
    return self.block(x)


class Up(nn.Module):

  def __init__(self, i, o):
    super().__init__()
    self.up = nn.ConvTranspose2d(i, o, 2, 2)
    self.conv_block = Level(i, o)

  def forward(self, x, skip):
    return self.conv_block(torch.cat([self.up(x), skip], 1))


class UNet(nn.Module):

  def __init__(self, channels, depth, wf):
    super().__init__()
    w = [2 ** (wf + i) for i in range(depth)]
    self.down_path = nn.ModuleList([Level(a, b) for a, b in zip([channels, *w], w)])
    self.up_path = nn.ModuleList([Up(w[i + 1], w[i]) for i in range(depth - 2, -1, -1)])
    self.last = nn.Conv2d(w[0], channels, 1)

  def forward(self, x):
    skips = []
    for i, level in enumerate(self.down_path):
      x = level(F.avg_pool2d(x, 2) if i else x)
      skips.append(x)
    for i, up in enumerate(self.up_path):
      x = up(x, skips[-2 - i])
    return self.last(x)


def build(setting, tensors, batch, device):
  """step() -> loss of one training step on the given batch.

  Args:
    setting: depth, wf, channels, lr, variant.
    tensors: {name: numpy}, the initial state dict.
    batch: image [B,H,W,C], noise [B,r,r,C] already scaled, roll [2]; numpy.
    device: "cpu" or "gpu".
  """
  how = prepare(setting["variant"], device)
  place = torch.device("cuda" if device == "gpu" else "cpu")
  net = UNet(setting["channels"], setting["depth"], setting["wf"])
  net.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()})
  memory = torch.channels_last if how["channels_last"] else torch.contiguous_format
  net = net.to(place, memory_format=memory)
  nchw = lambda a: torch.from_numpy(a).to(place).permute(0, 3, 1, 2).contiguous(
      memory_format=memory)
  image, noise = nchw(batch["image"]), nchw(batch["noise"])
  rows, columns = (int(v) for v in batch["roll"])
  fused = {"fused": True} if how["fused"] else {}
  adam = torch.optim.Adam(net.parameters(), lr=setting["lr"], weight_decay=1e-5, amsgrad=True,
                          **fused)

  def loss_fn(image, noise):
    mask = (image.sum(1, keepdim=True) > 0.01).float()
    field = F.interpolate(noise, size=image.shape[-2:], mode="bilinear", align_corners=True)
    noised = image + mask * torch.roll(field, (rows, columns), (2, 3))
    with how["autocast"]():
      recon = net(noised)
    return (mask * (recon.float() - image) ** 2).mean()
  loss_fn = how["compile"](loss_fn)

  def step():
    adam.zero_grad(set_to_none=True)
    loss = loss_fn(image, noise)
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 0.5)
    adam.step()
    return loss.detach()
  return step
