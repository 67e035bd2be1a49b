"""Training runs of DPA against the public code's: plain, growing and adversarial, and schedules."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from medae_jax import convert
from medae_jax.core import trained
from medae_jax.training import early_stop
from medae_jax.core import method as method_lib
from medae_jax.methods import _growing, dpa
from tests.golden_cases import golden_dir
from tests.parity import dpa_golden as g

# Golden README: outputs 3e-6, gradients 1e-5, parameters 2e-6 absolute over 3 steps (3e-5 over a
# growing run), losses 1e-6; sums in another order move float32 by a few times that. Adam divides by
# |gradient| + 1e-8, so entries with a first gradient below 1e-6 (in the weight-scaled case nearly
# all of the encoder, at 1e-13) follow its rounding: they must stay within a share of a step
# (`far`), all others within `close`.
OUT = dict(rtol=1e-4, atol=2e-5)
LOSS = dict(rtol=2e-5, atol=1e-6)


def _close_params(got, want, *, close, far, what, grads=None):
  for net in want:
    misses, clear = {}, []
    for path, value in jax.tree_util.tree_leaves_with_path(want[net]):
      found = _leaf(got[net], path)
      misses[jax.tree_util.keystr(path)] = np.abs(np.asarray(found) - value).reshape(-1)
      gradient = grads and _leaf(grads[net], path)
      clear.append(np.abs(gradient).reshape(-1) > 1e-6 if grads else np.full(value.size, True))
    every, clear = np.concatenate(list(misses.values())), np.concatenate(clear)
    worst = max(misses, key=lambda k: misses[k].max())
    share = np.mean(every[clear] <= close) if clear.any() else 1.0
    assert share >= 0.99, f"{what} {net}: {share:.4f} of {clear.sum()} within {close}"
    assert every.max() <= far, f"{what} {net}{worst}: {every.max()}"


def _leaf(tree, path):
  for key in path:
    tree = tree[key.key]
  return np.asarray(tree)


def _params(arrays, prefix, kind, nets=("enc", "dec")):
  names = {"dis": "ddis"}
  converted = {n: g.dpa_torch.convert(g.sub(arrays, f"{prefix}{names.get(n, n)}/"), kind)
               for n in nets}
  return ({n: p for n, (p, _) in converted.items()}, {n: s for n, (_, s) in converted.items() if s})


def _put(state, params, stats=()):
  """The state with the blocks it has taken from `params` (other stages' blocks are ignored)."""
  new = {n: {k: jax.tree.map(jnp.asarray, params[n][k]) for k in state.params[n]} for n in params}
  return state.replace(params={**state.params, **new}, stats={**state.stats, **dict(stats)})


def _step(method, stage):
  return jax.jit(lambda s, b: method.train_step(s, b, jax.random.key(0), stage=stage,
                                                axis_name=None))


def _train_cases():
  try:
    return sorted(p.stem for p in golden_dir("dpa").glob("train_*.npz"))
  except pytest.skip.Exception:
    return []


@pytest.mark.slow
@pytest.mark.parametrize("name", _train_cases())
def test_plain_training(name, tmp_path):
  folder = golden_dir("dpa")
  arrays, case = g.read(folder / f"{name}.npz")
  kind, lr = case["kind"], case["adam"]["lr"]
  config = g.config(
      {**g.loss_fields(case["loss_type"], case["loss_kwargs"]), **g.vgg_files(folder, tmp_path)},
      g.model_fields(kind, case["enc_inner_dims"], case["dec_inner_dims"], res=case["res"],
                     latent_res=case["latent_res"], latent_dim=case["latent_dim"],
                     enc_kwargs=case["enc_kwargs"], dec_kwargs=case["dec_kwargs"]),
      lr=lr, steps=case["steps"], batch=case["batch"])
  with config.unlocked():
    config.optim.update({k: v for k, v in case["adam"].items() if k in config.optim})
  method = dpa.Method(config)
  stage, = method_lib.stages_of(method)
  images = g.nhwc(arrays["x"])
  batch = lambda i: {"image": images[i], "index": np.arange(len(images[i]), dtype=np.int32)}
  state = _put(method_lib.fresh_state(method, jax.random.key(0), batch(0)), *_params(arrays, "", kind))

  score = jax.jit(method.score)
  recon = score(state, batch(0))["recon"]
  np.testing.assert_allclose(g.nchw(recon), arrays["rec0"], **OUT)
  train = lambda nets: _mean_loss(method, state, nets, images[0])
  grads = jax.jit(jax.grad(train))({n: state.params[n] for n in ("enc", "dec")})
  first, _ = _params(arrays, "grad0/", kind)
  for net in first:  # 1e-4 of each array's largest entry, 1e-8 where that is rounding
    jax.tree.map(lambda a, b: np.testing.assert_allclose(
        a, b, rtol=0, atol=1e-4 * np.abs(b).max() + 1e-8), grads[net], first[net])

  step = _step(method, stage)
  for i in range(case["steps"]):
    state, metrics = step(state, batch(i))
    np.testing.assert_allclose(metrics["loss"], arrays["loss_steps"][i], **LOSS)
    if f"after{i + 1}/enc/" in {k[:len(f"after{i + 1}/enc/")] for k in arrays}:
      wanted, _ = _params(arrays, f"after{i + 1}/", kind)
      _close_params(state.params, wanted, close=1e-3 * lr + 2e-6, far=0.3 * lr, grads=first,
                    what=f"step {i + 1}")
  out = score(state, batch(0))
  np.testing.assert_allclose(out["score"], arrays["final_scores"], rtol=1e-4)
  np.testing.assert_allclose(g.nchw(out["recon"]), arrays["final_rec"], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_published_style_checkpoint_is_converted(tmp_path):
  """enc.* and dec.* with torch's names -> a workdir; its reconstruction is the reference's."""
  folder, name = golden_dir("dpa"), "train_res18_lat1"
  if not (folder / f"{name}.npz").exists():
    name = _train_cases()[0]
  arrays, case = g.read(folder / f"{name}.npz")
  config = g.config(
      {**g.loss_fields(case["loss_type"], case["loss_kwargs"]), **g.vgg_files(folder, tmp_path)},
      g.model_fields(case["kind"], case["enc_inner_dims"], case["dec_inner_dims"], res=case["res"],
                     latent_res=case["latent_res"], latent_dim=case["latent_dim"]),
      lr=case["adam"]["lr"], steps=case["steps"], batch=case["batch"])
  with config.unlocked():
    config.data.update(image_size=case["res"], channels=case["image_dim"])
  last = f"after{case['steps']}/"
  np.savez(tmp_path / "model.npz", **{f"{net}.{k}": v for net in ("enc", "dec")
                                      for k, v in g.sub(arrays, f"{last}{net}/").items()})
  convert.convert(tmp_path / "model.npz", config, tmp_path / "work")
  run = trained.load(tmp_path / "work")
  method, state = run.method, run.state
  out = jax.jit(method.score)(state, {"image": g.nhwc(arrays["x"])[0]})
  np.testing.assert_allclose(g.nchw(out["recon"]), arrays["final_rec"], **OUT)
  np.testing.assert_allclose(out["score"], arrays["final_scores"], rtol=1e-4)


def _mean_loss(method, state, nets, image):
  params = {**state.params, **nets}
  # pylint: disable-next=protected-access
  recon, _ = method._reconstruct(params, state.stats, image, 1.0, train=True)
  return method.perceptual.losses(params, state.stats, image, recon, res=image.shape[1]).mean()


def _published_model(c):
  """Fields of config.model out of a published configuration."""
  enc, dec = (dict(c[net]["kwargs"]) for net in ("enc", "dec"))
  return g.model_fields(c["enc"]["type"], enc.pop("inner_dims"), dec.pop("inner_dims"),
                        res=c["max_image_res"], latent_res=c["latent_res"],
                        latent_dim=c["latent_dim"], enc_kwargs=enc, dec_kwargs=dec)


def _pg(tmp_path):
  folder = golden_dir("dpa")
  arrays, case = g.read(folder / "pg_growth.npz")
  c = case["config"]
  own = ", ".join(f"{stage}_{res}:{n}" for res, stages in c["iters_per_res"].items()
                  for stage, n in stages.items())
  config = g.config(
      {**g.loss_fields(c["image_rec_loss"]["loss_type"], c["image_rec_loss"]["loss_kwargs"]),
       **g.vgg_files(folder, tmp_path)},
      _published_model(c),
      lr=c["adam_kwargs"]["lr"], steps=c["stab_iter"], batch=1, parity=True,
      growing={"initial_res": c["initial_image_res"], "trns_steps": c["trns_iter"],
               "stab_steps": c["stab_iter"], "steps_per_stage": own,
               "batch_sizes": ", ".join(f"{r}:{n}" for r, n in c["batch_sizes"].items())})
  return arrays, case, dpa.Method(config)


def _rows(case, kind):
  return [r for r in case["rows"] if r[0] == kind]


@pytest.mark.slow
def test_growing_run(tmp_path):
  arrays, case, method = _pg(tmp_path)
  kind, lr = case["config"]["enc"]["type"], case["config"]["adam_kwargs"]["lr"]
  stages = method_lib.stages_of(method)
  wanted = [(f"{s}_{r}", begin, n) for _, begin, s, r, n in _rows(case, "stage")]
  assert [(s.name, s.begin, s.data["batch_size"]) for s in stages] == wanted
  losses = [r[1]["image_rec_loss"] for r in _rows(case, "enc_dec")]
  assert sum(s.steps for s in stages) == len(losses)

  images, orders = g.nhwc(arrays["train_images"]), case["batch_indices"][1:]
  batch = lambda rows: {"image": images[rows], "index": np.arange(len(rows), dtype=np.int32)}
  initial, _ = _params(arrays, "init/", kind)
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
    state, old_names = _put(state, new), set(state.params["enc"])
    step = _step(method, stage)
    for i in range(stage.begin, stage.begin + stage.steps):
      state, metrics = step(state, batch(orders[i]))
      np.testing.assert_allclose(metrics["rec_loss"], losses[i], rtol=2e-4,
                                 err_msg=f"step {i} of {stage.name}")
    assert step._cache_size() == 1  # pylint: disable=protected-access
    for n in known:
      known[n].update(jax.tree.map(np.asarray, state.params[n]))
    end = g.sub(arrays, f"end_{stage.name}/")
    if end:
      wanted, _ = _params({f"x/{k}": v for k, v in end.items()}, "x/", kind)
      mine = {n: {k: known[n][k] for k in wanted[n]} for n in wanted}
      _close_params(mine, wanted, close=5e-5, far=lr, what=stage.name)
  wanted, _ = _params(arrays, "end_final/", kind)
  _close_params({n: {k: known[n][k] for k in wanted[n]} for n in wanted}, wanted, close=5e-5,
                far=lr, what="final")
  scores = jax.jit(method.score)(state, {"image": g.nhwc(arrays["val_images"])})["score"]
  np.testing.assert_allclose(scores, arrays["eval_scores_val"], rtol=5e-4)


def test_forward_of_every_stage(tmp_path):
  arrays, case, method = _pg(tmp_path)
  initial, _ = _params(arrays, "init/", case["config"]["enc"]["type"])
  image, latent = g.nhwc(arrays["probe_x"]), g.nhwc(arrays["probe_z"])
  names = sorted(k for k in arrays if k.startswith("fwd/"))
  assert names
  apply = jax.jit(lambda module, p, x, alpha: module.apply({"params": p}, x, alpha),
                  static_argnums=0)
  for name in names:
    _, stage, *alpha, net = name.split("/")
    kind, res = stage.split("_")
    alpha = float(alpha[0][1:]) if alpha else 1.0
    # pylint: disable-next=protected-access
    module = method._nets(image.shape[-1], int(res), kind == "trns")[net]
    x = latent
    if net == "enc":
      n = image.shape[1] // int(res)
      x = image.reshape(len(image), int(res), n, int(res), n, -1).mean((2, 4))
    found = apply(module, initial[net], x, alpha)
    np.testing.assert_allclose(g.nchw(found), arrays[name], err_msg=name, **OUT)


@pytest.mark.slow
def test_adversarial_run(tmp_path):
  folder = golden_dir("dpa")
  arrays, case = g.read(folder / "adversarial.npz")
  c = case["config"]
  kind, lr, n_dis = c["enc"]["type"], c["adam_kwargs"]["lr"], c["n_dis"]
  size = c["batch_sizes"][str(c["max_image_res"])]
  options = {k: v for k, v in c["image_adv_loss"]["loss_kwargs"].items()}
  config = g.config(
      {**g.loss_fields(c["image_rec_loss"]["loss_type"], c["image_rec_loss"]["loss_kwargs"]),
       **g.vgg_files(folder, tmp_path)},
      {**_published_model(c),
       "dis_widths": tuple(c["ddis"]["kwargs"]["inner_dims"])},
      lr=lr, steps=c["stab_iter"], batch=size, parity=True,
      adversarial={"name": c["image_adv_loss"]["loss_type"], "n_dis": n_dis, **options,
                   "weight": c["loss_weights"]["image_adv_loss"]})
  method = dpa.Method(config)
  stage, = method_lib.stages_of(method)
  images, orders = g.nhwc(arrays["train_images"]), case["batch_indices"][1:]
  alphas = arrays.get("train_alphas", np.zeros((stage.steps * n_dis, size, 1), np.float32))

  def batch(i):
    """The n_dis + 1 batches of iteration i, interleaved as _critics.sub_batches wants."""
    rows = np.stack(orders[i * (n_dis + 1):(i + 1) * (n_dis + 1)], 1).reshape(-1)
    mix = np.concatenate([alphas[i * n_dis:(i + 1) * n_dis], np.zeros((1, size, 1), np.float32)])
    return {"image": images[rows], "index": np.arange(len(rows), dtype=np.int32),
            "mix": np.stack(list(mix), 1).reshape(-1, 1)}
  assert stage.data["batch_size"] == size * (n_dis + 1)
  state = _put(method_lib.fresh_state(method, jax.random.key(0), batch(0)),
               *_params(arrays, "init/", kind, ("enc", "dec", "dis")))
  step = _step(method, stage)
  critic, main = _rows(case, "ddis"), _rows(case, "enc_dec")
  for i in range(stage.steps):
    state, metrics = step(state, batch(i))
    last = critic[(i + 1) * n_dis - 1][1]  # metrics keep the last critic step of an iteration
    for name, value in last.items():
      np.testing.assert_allclose(metrics[f"dis_{name}"], value, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["rec_loss"], main[i][1]["image_rec_loss"], **OUT)
    # The reference logs the generator's term already multiplied by its weight.
    np.testing.assert_allclose(c["loss_weights"]["image_adv_loss"] * metrics["adv_loss"],
                               main[i][1]["image_adv_loss"], **OUT)
  wanted, _ = _params(arrays, "end/", kind, ("enc", "dec", "dis"))
  _close_params(state.params, wanted, close=5e-6, far=lr, what="end")
  val = _rows(case, "val")
  if val:
    out = jax.jit(lambda s, b: method.eval_step(s, b, None))(
        state, {"image": g.nhwc(arrays["val_images"])[:size]})
    np.testing.assert_allclose(out["rec_loss"].mean(), val[0][1]["image_rec_loss"], **OUT)


def test_stage_lengths():
  case = g.json.loads((golden_dir("dpa") / "schedule.json").read_text())
  for n, runs in case["final_stage_iterations_for_N"].items():
    assert _growing.reference_iterations(int(n)) == runs, n
  for n, runs in case["non_final_stage_iterations_for_N"].items():
    growing = ml_collections.ConfigDict(dict(initial_res=8, trns_steps=int(n), stab_steps=int(n),
                                             steps_per_stage="", batch_sizes=""))
    c = ml_collections.ConfigDict(dict(
        method=dict(growing=growing, parity=True), model=dict(max_res=16),
        train=dict(steps=int(n), batch_size=1)))
    lengths = [s.steps for s in _growing.stages(c)]
    assert lengths[:-1] == [runs] * 2
    assert lengths[-1] == case["final_stage_iterations_for_N"][n]


def test_early_stopping():
  case = g.json.loads((golden_dir("dpa") / "schedule.json").read_text())
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


def test_roc_auc():
  from medae_jax.metrics import detection as metrics  # pylint: disable=import-outside-toplevel
  arrays, _ = g.read(golden_dir("dpa") / "roc_auc.npz")
  scores = np.concatenate([arrays["normal_scores"], arrays["anomaly_scores"]])
  labels = np.repeat([0, 1], [len(arrays["normal_scores"]), len(arrays["anomaly_scores"])])
  np.testing.assert_allclose(metrics.auroc(metrics.sorted_counts(scores, labels)), arrays["roc_auc"], atol=1e-9)
