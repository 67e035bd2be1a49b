"""JungUNet annotation-removal step in PyTorch: weighted squared error (150 on marks), Adam."""

import torch
from torch import nn

from benchmarks.peers.options import prepare


class ConvNorm(nn.Module):

  def __init__(self, i, o):
    super().__init__()
    self.conv = nn.Conv2d(i, o, 3, padding=1, bias=False)
    self.bn = nn.BatchNorm2d(o)

  def forward(self, x):
    return torch.relu(self.bn(self.conv(x)))


class Gate(nn.Module):
  """Squeeze-excitation; hidden width c // 16, no biases."""

  def __init__(self, c):
    super().__init__()
    self.excitation = nn.Sequential(nn.Linear(c, c // 16, bias=False), nn.ReLU(),
                                    nn.Linear(c // 16, c, bias=False), nn.Sigmoid())

  def forward(self, x):
    return x * self.excitation(x.mean((2, 3)))[:, :, None, None]


class Stage(nn.Module):

  def __init__(self, i, o):
    super().__init__()
    self.conv_1, self.seb_1 = ConvNorm(i, o), Gate(o)
    self.conv_2, self.seb_2 = ConvNorm(o, o), Gate(o)

  def forward(self, x):
    return self.seb_2(self.conv_2(self.seb_1(self.conv_1(x))))


class Latent(nn.Module):

  def __init__(self, c):
    super().__init__()
    self.conv_1 = nn.Conv2d(c, c, 3, padding=1, bias=False)
    self.se_block_1 = Gate(c)
    self.dilated_convs = nn.ModuleList(
        [nn.Conv2d(c, c // 4, 3, padding=d, dilation=d) for d in (2, 4, 8, 16)])
    self.conv1x1 = nn.Conv2d(2 * c, c, 1)
    self.conv_2 = nn.Conv2d(c, c, 3, padding=1, bias=False)
    self.se_block_2 = Gate(c)
    self.up_conv = nn.ConvTranspose2d(c, c // 2, 2, 2)

  def forward(self, x):
    x = self.se_block_1(self.conv_1(x))
    x = self.conv1x1(torch.cat([x, *(conv(x) for conv in self.dilated_convs)], 1))
    return self.up_conv(self.se_block_2(self.conv_2(x)))


class JungUNet(nn.Module):

  def __init__(self, channels, w):
    super().__init__()
    self.encoder_1, self.encoder_2 = Stage(channels, w), Stage(w, 2 * w)
    self.encoder_3, self.latent_block = Stage(2 * w, 4 * w), Latent(4 * w)
    self.encoder_4, self.up_conv_1 = Stage(6 * w, 2 * w), nn.ConvTranspose2d(2 * w, w, 2, 2)
    self.encoder_5, self.up_conv_2 = Stage(3 * w, w), nn.ConvTranspose2d(w, w // 2, 2, 2)
    self.encoder_6, self.last_conv = Stage(3 * w // 2, w // 2), nn.Conv2d(w // 2, 1, 1)
    self.pool = nn.AvgPool2d(2)

  def forward(self, x):
    a = self.encoder_1(x)
    b = self.encoder_2(self.pool(a))
    c = self.encoder_3(self.pool(b))
    x = self.latent_block(self.pool(c))
    x = self.up_conv_1(self.encoder_4(torch.cat([c, x], 1)))
    x = self.up_conv_2(self.encoder_5(torch.cat([b, x], 1)))
    return torch.sigmoid(self.last_conv(self.encoder_6(torch.cat([a, x], 1))))


def build(setting, tensors, batch, device):
  """step() -> loss. setting: width, channels, lr, variant; batch: image, clean [B,H,W,1]."""
  how = prepare(setting["variant"], device)
  place = torch.device("cuda" if device == "gpu" else "cpu")
  net = JungUNet(setting["channels"], setting["width"])
  net.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()}, strict=False)
  memory = torch.channels_last if how["channels_last"] else torch.contiguous_format
  net = net.to(place, memory_format=memory).train()
  nchw = lambda a: torch.from_numpy(a).to(place).permute(0, 3, 1, 2).contiguous(
      memory_format=memory)
  image, clean = nchw(batch["image"]), nchw(batch["clean"])
  adam = torch.optim.Adam(net.parameters(), lr=setting["lr"], **({"fused": True} if how["fused"]
                                                                 else {}))

  def loss_fn(image, clean):
    weight = 1.0 + 149.0 * (image != clean).float()
    with how["autocast"]():
      recon = net(image)
    return (weight * (clean - recon.float()) ** 2).sum() / weight.sum()
  loss_fn = how["compile"](loss_fn)

  def step():
    adam.zero_grad(set_to_none=True)
    loss = loss_fn(image, clean)
    loss.backward()
    adam.step()
    return loss.detach()
  return step
