"""Deep GEO step in PyTorch: gather of the transformed images, WRN, cross-entropy with L2 in the loss."""

import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

from benchmarks.peers.options import prepare


def sources(side, shift):
  """Source pixel int64 [72, side^2] of each of the 72 transformations, by moving pixel numbers about."""
  pixels, tables = np.arange(side * side).reshape(side, side), []
  for flip in (0, 1):
    for dy in (0, -shift, shift):
      for dx in (0, -shift, shift):
        k = lambda d: np.clip(np.pad(np.arange(side), side, "symmetric")[side + d:2 * side + d], 0, side - 1)
        moved = (pixels[:, ::-1] if flip else pixels)[k(dy)][:, k(dx)]
        tables += [np.rot90(moved, turns).ravel() for turns in range(4)]
  return torch.from_numpy(np.stack(tables).astype(np.int64))


def norm(c):
  return nn.BatchNorm2d(c, eps=1.001e-5, momentum=0.1)


class Same(nn.Conv2d):
  """Keras's 'same': a 3x3 kernel with stride 2 pads below and on the right only."""

  def __init__(self, i, o, size, stride):
    super().__init__(i, o, size, stride, padding=1 if size == 3 and stride == 1 else 0, bias=False)
    self.after = size == 3 and stride == 2

  def forward(self, x):
    return super().forward(F.pad(x, (0, 1, 0, 1)) if self.after else x)


class Block(nn.Module):
  def __init__(self, i, o, stride):
    super().__init__()
    self.bn1, self.conv1, self.bn2, self.conv2 = norm(i), Same(i, o, 3, stride), norm(o), Same(o, o, 3, 1)
    self.shortcut = Same(i, o, 1, stride) if i != o else None

  def forward(self, x):
    h = F.relu(self.bn1(x))
    y = self.conv2(F.relu(self.bn2(self.conv1(h))))
    return y + (x if self.shortcut is None else self.shortcut(h))


class WideResNet(nn.Module):
  def __init__(self, channels, blocks, widen, classes):
    super().__init__()
    self.conv0, width = Same(channels, 16, 3, 1), 16
    for g in (1, 2, 3):
      out = (8 << g) * widen
      group = [Block(width if b == 0 else out, out, 2 if g > 1 and b == 0 else 1) for b in range(blocks)]
      setattr(self, f"g{g}", nn.ModuleDict({f"b{b}": block for b, block in enumerate(group)}))
      width = out
    self.bn_final, self.dense = norm(width), nn.Linear(width, classes)

  def forward(self, x):
    x = self.conv0(x)
    for g in (self.g1, self.g2, self.g3):
      for block in g.values():
        x = block(x)
    return self.dense(F.avg_pool2d(F.relu(self.bn_final(x)), 8).permute(0, 2, 3, 1).flatten(1))


_NAMES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias",
          "moving_mean": "running_mean", "moving_variance": "running_var"}


def state_dict(tensors):
  """PyTorch's names and layouts of tensors in Keras's form."""
  found = {}
  for name, value in tensors.items():
    layer, _, leaf = name.rpartition(".")
    value = np.transpose(value, (3, 2, 0, 1)) if value.ndim == 4 else value.T
    found[f"{layer}.{_NAMES[leaf]}"] = torch.from_numpy(np.ascontiguousarray(value))
  return found


def build(setting, tensors, batch, device):
  """step() -> loss. setting: blocks, widen, channels, size, shift, lr, variant."""
  how = prepare(setting["variant"], device)
  place = torch.device("cuda" if device == "gpu" else "cpu")
  s, side = setting, setting["size"][0]
  net = WideResNet(s["channels"], s["blocks"], s["widen"], 72)
  net.load_state_dict(state_dict(tensors), strict=False)  # without num_batches_tracked
  memory = torch.channels_last if how["channels_last"] else torch.contiguous_format
  net = net.to(place, memory_format=memory)
  image = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).flatten(2).contiguous().to(place)
  view, table = torch.from_numpy(batch["view"]).long().to(place), sources(side, s["shift"]).to(place)
  parameters = list(net.parameters())
  adam = torch.optim.Adam(parameters, lr=s["lr"], eps=1e-7, **({"fused": True} if how["fused"] else {}))

  def loss_fn(image, view):
    index = table[view][:, None].expand(-1, image.shape[1], -1)
    x = image.gather(2, index).view(-1, image.shape[1], side, side).contiguous(memory_format=memory)
    with how["autocast"]():
      logits = net(x)
    l2 = sum((p**2).sum() for p in parameters)
    return F.cross_entropy(logits.float(), view) + s["l2"] * l2
  loss_fn = how["compile"](loss_fn)

  def step():
    adam.zero_grad(set_to_none=True)
    loss = loss_fn(image, view)
    loss.backward()
    adam.step()
    return loss.detach()
  return step
