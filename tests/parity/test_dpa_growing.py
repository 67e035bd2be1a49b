"""Progressive growing of DPA against the public code's: networks, a whole run, stage lengths."""

import json

import jax
import ml_collections
import numpy as np
import pytest

from medae_jax.core import method as method_lib
from medae_jax.methods import _growing, dpa
from medae_jax.training import early_stop
from tests.golden_cases import file_cases
from tests.parity import dpa_golden as g
from tests.parity.double import double

COMPILED_FAST = True  # dozens of programs of a few steps each, in float64


def _pg(file, tmp_path, **fields):
  arrays, case = g.read(file)
  c = case["config"]
  first, last = c["initial_image_res"], c["max_image_res"]
  used = lambda res, stage="stab": first + (stage == "trns") <= int(res) <= last  # files may name more
  own = ", ".join(f"{stage}_{res}:{n}" for res, stages in c["iters_per_res"].items()
                  for stage, n in stages.items() if used(res, stage))
  config = g.config(
      {**g.loss_fields(c["image_rec_loss"]["loss_type"], c["image_rec_loss"]["loss_kwargs"]),
       **g.vgg_files(file.parent, tmp_path)},
      g.published_model(c),
      adam=c["adam_kwargs"], steps=c["stab_iter"], batch=1, parity=True, **fields,
      growing={"initial_res": c["initial_image_res"], "transition_steps": c["trns_iter"],
               "stable_steps": c["stab_iter"], "steps_per_stage": own,
               "batch_sizes": ", ".join(f"{r}:{n}" for r, n in c["batch_sizes"].items() if used(r))})
  return arrays, case, dpa.Method(config)


@pytest.mark.slow
@pytest.mark.parametrize("file", file_cases("dpa", "pg_growth*.npz"))
def test_growing_run(file, tmp_path, float64):
  arrays, case, method = _pg(file, tmp_path, double=True)
  kind, lr = case["config"]["enc"]["type"], case["config"]["adam_kwargs"]["lr"]
  stages = method_lib.stages_of(method)
  wanted = [(g.stage(f"{s}_{r}"), begin, n) for _, begin, s, r, n in g.rows(case, "stage")]
  assert [(s.name, s.begin, s.data["batch_size"]) for s in stages] == wanted
  losses = [r[1]["image_rec_loss"] for r in g.rows(case, "enc_dec")]
  assert sum(s.steps for s in stages) == len(losses)

  images, orders = double(g.nhwc(arrays["train_images"])), case["batch_indices"][1:]
  batch = lambda rows: {"image": images[np.array(rows)],
                        "index": np.arange(len(rows), dtype=np.int32)}
  initial, scales = g.params(arrays, "init/", kind)
  known = {n: dict(p) for n, p in initial.items()}  # every block as it stands, all stages
  state, old_names = None, set()
  for stage in stages:
    first = batch(orders[stage.begin])
    state = (method_lib.fresh_state(method, jax.random.key(0), first) if state is None
             else method.grow(state, stage, jax.random.key(1), first))
    # New blocks start from the reference's initial values; the rest must have survived `grow`.
    new = {n: {k: known[n][k] for k in state.params[n]} for n in known}
    kept = [k for k in state.params["enc"] if k in old_names]
    for k in kept:
      jax.tree.map(np.testing.assert_array_equal, state.params["enc"][k], new["enc"][k])
    state, old_names = g.put(state, new, scales), set(state.params["enc"])
    step = g.step(method, stage)
    for i in range(stage.begin, stage.begin + stage.steps):
      state, metrics = step(state, batch(orders[i]))
      np.testing.assert_allclose(metrics["rec_loss"], losses[i], rtol=2e-5,
                                 err_msg=f"step {i} of {stage.name}")
    assert step._cache_size() == 1
    for n, blocks in known.items():
      blocks.update(jax.tree.map(np.asarray, state.params[n]))
    published = {g.stage(f"{s}_{r}"): f"{s}_{r}" for _, _, s, r, _ in g.rows(case, "stage")}
    end = g.sub(arrays, f"end_{published[stage.name]}/")
    if end:
      wanted, _ = g.params({f"x/{k}": v for k, v in end.items()}, "x/", kind)
      mine = {n: {k: known[n][k] for k in wanted[n]} for n in wanted}
      g.close_params(mine, wanted, close=5e-5, far=lr, what=stage.name)
  wanted, _ = g.params(arrays, "end_final/", kind)
  g.close_params({n: {k: known[n][k] for k in wanted[n]} for n in wanted}, wanted, close=5e-5,
                far=lr, what="final")
  val_images = double(g.nhwc(arrays["val_images"]))
  scores = jax.jit(method.score)(state, {"image": val_images})["score"]
  np.testing.assert_allclose(scores, arrays["eval_scores_val"], rtol=5e-5)
  g.check_validation(method, state, val_images, g.rows(case, "val"), stages[-1].data["batch_size"])


@pytest.mark.parametrize("file", file_cases("dpa", "pg_growth*.npz"))
def test_forward_of_every_stage(file, tmp_path):
  """Single passes in float32; the recorded rows may be the first of the probes."""
  arrays, case, method = _pg(file, tmp_path)
  initial, scales = g.params(arrays, "init/", case["config"]["enc"]["type"])
  image, latent = g.nhwc(arrays["probe_x"]), g.nhwc(arrays["probe_z"])
  names = sorted(k for k in arrays if k.startswith("fwd/"))
  assert names
  apply = jax.jit(lambda module, p, s, x, alpha: module.apply({"params": p, "batch_stats": s}, x, alpha),
                  static_argnums=0)
  for name in names:
    _, stage, *alpha, net = name.split("/")
    kind, res = stage.split("_")
    alpha = float(alpha[0][1:]) if alpha else 1.0
    module = method._nets(image.shape[-1], int(res), kind == "trns")[net]
    x, want = latent, arrays[name]
    if net == "enc":
      n = image.shape[1] // int(res)
      x = image.reshape(len(image), int(res), n, int(res), n, -1).mean((2, 4))
    found = apply(module, initial[net], scales.get(net, {}), x[:len(want)], alpha)
    np.testing.assert_allclose(g.nchw(found), want, err_msg=name, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("file", file_cases("dpa", "schedule*.json"))
def test_stage_lengths(file):
  case = json.loads(file.read_text())
  for n, runs in case["final_stage_iterations_for_N"].items():
    assert _growing.reference_iterations(int(n)) == runs, n
  for n, runs in case["non_final_stage_iterations_for_N"].items():
    growing = ml_collections.ConfigDict(dict(initial_res=8, transition_steps=int(n),
                                             stable_steps=int(n),
                                             steps_per_stage="", batch_sizes=""))
    c = ml_collections.ConfigDict(dict(
        method=dict(growing=growing, parity=True), model=dict(max_res=16),
        train=dict(steps=int(n), batch_size=1)))
    lengths = [s.steps for s in _growing.stages(c)]
    assert lengths[:-1] == [runs] * 2
    final = case["final_stage_iterations_for_N"]
    assert n not in final or lengths[-1] == final[n]


@pytest.mark.parametrize("file", file_cases("dpa", "schedule*.json"))
def test_early_stopping(file):
  case = json.loads(file.read_text())
  for trace in case["early_stopping"]:
    steps, best, stale, saved, used = _growing.reference_iterations(trace["N"]), None, 0, [], []
    best_at, step, values = 0, 0, iter(trace["val_losses"])
    for step in range(1, steps + 1):
      if step % trace["val_iter"]:
        continue
      used.append(next(values))
      if early_stop.improves(used[-1], best, "min", trace["delta"]):
        best, stale, best_at = used[-1], 0, step
        saved.append(step)
      else:
        stale += 1
      if early_stop.exhausted(stale, trace["patience"] + 1):
        break
    if step % trace["val_iter"]:  # the closing validation of the loop, where any gain counts
      used.append(next(values))
      if early_stop.improves(used[-1], best, "min", 0.0):
        best_at = step
        saved.append(step)
    assert (used, step, saved, best_at) == (trace["val_losses_consumed"], trace["n_iter_at_end"],
                                            trace["saved_at"], trace["best_val_iter"]), trace
