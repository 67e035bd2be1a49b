"""Forward passes of the DAE in PyTorch over a folder of images, each pass timed.

  python -m benchmarks.peers.scoring '{"folder": ..., "depth": 4, "wf": 6, "passes": 2,
                                       "device": "cpu"}'

Reads weights.npz and images.npy [n,H,W,C], writes recon.npy; batches of 16 as published.
"""

import json
import os
import pathlib
import sys
import time

import numpy as np
import torch

from benchmarks.peers.dae import UNet


def main():
  setting = json.loads(sys.argv[1])
  folder = pathlib.Path(setting["folder"])
  torch.set_flush_denormal(True)
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  images = np.load(folder / "images.npy", allow_pickle=False)
  place = torch.device("cuda" if setting["device"] == "gpu" else "cpu")
  net = UNet(images.shape[-1], setting["depth"], setting["wf"]).to(place)
  weights = np.load(folder / "weights.npz", allow_pickle=False)
  net.load_state_dict({k: torch.from_numpy(weights[k]) for k in weights.files})
  recon, seconds = np.empty_like(images), []
  with torch.no_grad():
    for _ in range(setting["passes"]):
      begin = time.perf_counter()
      for i in range(0, len(images), 16):
        image = torch.from_numpy(images[i:i + 16]).to(place).permute(0, 3, 1, 2).contiguous()
        recon[i:i + 16] = net(image).permute(0, 2, 3, 1).cpu().numpy()
      seconds.append(time.perf_counter() - begin)
  np.save(folder / "recon.npy", recon)
  print(json.dumps({"seconds": seconds, "torch": torch.__version__}))


if __name__ == "__main__":
  main()
