r"""Time and memory of the reweighting step: one JVP against the published double backward.

  python -m benchmarks.noisy_annotation_forms --width=8 --size=48 --noisy=6 --clean=6
  python -m benchmarks.noisy_annotation_forms --run=W     # network and data of a trained run
Both steps are compiled first and then run in turns in one process, so that load of the machine
meets both alike; "plain" is the ordinary supervised step on the noisy batch, for scale. Prints one
JSON object: seconds a step (median and fastest), temporary memory as the compiler plans it, the
ratio, the largest relative difference of u between the forms, and how many signs of u change when
the meta gradient runs in bfloat16 instead. The latter means something for a trained network only:
at the start nearly all pixels agree through the last bias.
"""

from __future__ import annotations

import argparse
import json
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

from configs import noisy_skin
from data_pipelines import dataset, stream
from medae_jax.core import config, method as method_lib, trained
from medae_jax.training import durations


def config_of(args, **changes):
  """The published configuration at the sizes asked for, or that of the run."""
  if args.run:
    c = config.read_config(args.run).copy_and_resolve_references()
    with c.unlocked():
      c.method.update({"track": 0, "baseline": "pixel_reweight", **changes})
    return c
  c = noisy_skin.get_config().copy_and_resolve_references()
  with c.unlocked():
    c.model.width, c.method.track = args.width, 0
    c.model.init = "he"  # published initial weights give logits almost without gradient
    c.method.update(changes)
  return durations.without_data(c)


def batch_of(args):
  """Smooth random images and masks: the time of a step does not depend on the values. Of a run, the
  first batch that follows its training."""
  if args.run:
    c = config.read_config(args.run)
    data = dataset.open_dataset(c.data, c.seed)
    batch = next(stream.train_stream(data, c.data, batch_size=c.train.batch_size,
                                     first_step=c.train.steps, seed=c.seed))
    return {k: {n: jnp.asarray(v[n]) for n in ("image", "mask")} for k, v in batch.items()}
  def part(n, key):
    image = jax.random.uniform(jax.random.key(key), (n, args.size, args.size, 3))
    coarse = jax.random.normal(jax.random.key(key + 1), (n, 4, 4, 1))
    mask = jax.image.resize(coarse, (n, args.size, args.size, 1), "cubic") > 0
    return {"image": image, "mask": mask.astype(jnp.float32)}
  return {"noisy": part(args.noisy, 0), "clean": part(args.clean, 10)}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name, default in (("width", 64), ("size", 96), ("noisy", 6), ("clean", 6), ("repeats", 10)):
    parser.add_argument(f"--{name}", type=int, default=default)
  parser.add_argument("--run", default="", help="folder of a trained run, instead of sizes")
  args = parser.parse_args()
  batch, forms = batch_of(args), {}
  for name, changes in (("jvp", {}), ("double_backward", {"meta": "double_backward"}),
                        ("plain", {"baseline": "plain"})):
    method = method_lib.load(config_of(args, **changes))
    state = method_lib.fresh_state(method, jax.random.key(0), batch)
    if args.run:
      state = state.replace(params=trained.load(args.run, {"eval.checkpoint": "last"}).state.params)
    stage, = method_lib.stages_of(method)
    step = lambda s, b, m=method, g=stage: m.train_step(s, b, jax.random.key(0), stage=g,
                                                        axis_name=None)
    begin = time.perf_counter()
    compiled = jax.jit(step).lower(state, batch).compile()
    forms[name] = {"compile_s": time.perf_counter() - begin, "run": compiled, "state": state,
                   "temp_mb": compiled.memory_analysis().temp_size_in_bytes / 2**20, "s": []}
    jax.block_until_ready(compiled(state, batch))
  for _ in range(args.repeats):
    for form in forms.values():
      begin = time.perf_counter()
      jax.block_until_ready(form["run"](form["state"], batch))
      form["s"].append(time.perf_counter() - begin)

  u = {}
  for name, changes in (("jvp", {}), ("double_backward", {"meta": "double_backward"}),
                        ("bfloat16", {"meta_dtype": "bfloat16"})):
    method = method_lib.load(config_of(args, **changes))
    u[name] = np.asarray(jax.jit(lambda p, b, m=method: m._reweighted(p, b, 1, None)[2][1])(
        forms["jvp"]["state"].params["net"], batch))
  ratio = lambda what: what(forms["double_backward"]["s"]) / what(forms["jvp"]["s"])
  print(json.dumps({
      "device": jax.devices()[0].device_kind, "cores": len(os.sched_getaffinity(0)),
      "width": config_of(args).model.width, "repeats": args.repeats, "run": args.run,
      "noisy": batch["noisy"]["image"].shape, "clean": batch["clean"]["image"].shape,
      "forms": {k: {"median_s": float(np.median(f["s"])), "fastest_s": min(f["s"]),
                    "temp_mb": round(f["temp_mb"], 1), "compile_s": round(f["compile_s"], 1)}
                for k, f in forms.items()},
      "double_backward_over_jvp": {"median": ratio(np.median), "fastest": ratio(min)},
      "u_largest_relative_difference": float(
          np.max(np.abs(u["jvp"] - u["double_backward"])) / np.max(np.abs(u["jvp"]))),
      "u_sign_changes": {name: float(np.mean((u["jvp"] > 0) != (other > 0)))
                         for name, other in u.items() if name != "jvp"}}, indent=2))


if __name__ == "__main__":
  main()
