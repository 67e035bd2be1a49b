"""Checkpoints with Orbax: last (keep N) and best, asynchronous, atomic, readable on any device count.

<workdir>/checkpoints/last/<step>/ and <workdir>/checkpoints/best/<step>/ each hold
  model: step, params, stats, extra: plain dicts, restored from their own metadata, without data,
         optimiser or method;
  opt:   optimiser states, restored into the structure that the method builds;
  meta:  stage name, shapes of a batch of each stage, best value, method, checksum.
Orbax writes into a temporary folder and renames it, so that a killed save leaves nothing behind.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import shutil
from typing import Any

from absl import logging
import jax
import numpy as np
import orbax.checkpoint as ocp

from medae_jax.core import checksums, parallel, places, upgrade
from medae_jax.core.checksums import checksum
from medae_jax.core.errors import UserError
from medae_jax.core.files import check_files, read_json
from medae_jax.core.method import State


class Checkpoints:
  """The two checkpoint folders of a run."""

  def __init__(self, workdir: str | os.PathLike, keep: int = 2):
    places.check_workdir(workdir)
    self._workdir = pathlib.Path(workdir).absolute()
    root = self._workdir / "checkpoints"
    self._managers = {name: _manager(root / name, n) for name, n in (("last", keep), ("best", 1))}
    self._sound: dict[str, set[int]] = {"last": set(), "best": set()}    # saved or read by this object
    self._damaged: dict[str, set[int]] = {"last": set(), "best": set()}  # could not be read

  def save(self, which: str, state: State, meta: dict[str, Any]) -> None:
    """Starts an asynchronous save; a sound checkpoint of the same step is left alone.

    Checkpoints that could not be read are put aside first, as checkpoints/<which>.damaged/<step>:
    Orbax saves nothing at or below the newest step that is there.

    Raises:
      OSError: this or an earlier save failed (disk full ...); earlier checkpoints stay.
    """
    manager, step = self._managers[which], int(state.step)
    if step in manager.all_steps() and step not in self._sound[which] | self._damaged[which]:
      self._find_out(which, step)
    self._put_aside(which)
    if step in manager.all_steps():
      return
    if jax.process_count() > 1:
      # Two saves at once (last and best) number their barriers in threads, in another order in
      # every process: they would wait for each other for ever.
      self.wait()
    state = parallel.globalise(state)  # pmap returns arrays of this process; Orbax wants global ones
    model = {"step": state.step, "params": state.params, "stats": state.stats, "extra": state.extra}
    with _readable_errors(step):
      manager.save(step, args=ocp.args.Composite(
          model=ocp.args.StandardSave(model), opt=ocp.args.StandardSave({"opt": state.opt}),
          meta=ocp.args.JsonSave(checksums.signed(meta, self._method_name(), model=model, opt=state.opt))))
    self._sound[which].add(step)

  def replace(self, which: str, state: State, meta: dict[str, Any]) -> None:
    """Saves even where a checkpoint of this step exists (after finalize, say).

    That one stays as checkpoints/<which>.replaced/<step> until the new one is on disk (`put_back`).
    """
    manager, step = self._managers[which], int(state.step)
    self.wait()
    if step not in manager.all_steps():
      self.save(which, state, meta)
      return
    self._move([(pathlib.Path(manager.directory) / str(step), self._replaced(which) / str(step))])
    self._damaged[which].discard(step)
    manager.reload()
    self.save(which, state, meta)
    self.wait()
    if jax.process_index() == 0:
      shutil.rmtree(self._replaced(which))

  def put_back(self) -> None:
    """What `replace` had moved away in a run that was killed; for the process that writes checkpoints."""
    for which, manager in self._managers.items():
      left = [(p, pathlib.Path(manager.directory) / p.name) for p in self._replaced(which).glob("*")]
      self._move([(old, new) for old, new in left if not new.exists()])
      manager.reload()
      if jax.process_index() == 0:
        shutil.rmtree(self._replaced(which), ignore_errors=True)

  def _replaced(self, which) -> pathlib.Path:
    return pathlib.Path(self._managers[which].directory).with_name(f"{which}.replaced")

  def _move(self, pairs) -> None:
    """Renames folders, [(old, new)], once for all processes."""
    if jax.process_index() == 0:
      for old, new in pairs:
        new.parent.mkdir(exist_ok=True)
        old.rename(new)
    if jax.process_count() > 1:
      from jax.experimental import multihost_utils
      multihost_utils.sync_global_devices("checkpoints moved")

  def wait(self) -> None:
    """Blocks until all saves are on disk.

    Raises:
      OSError: a save failed.
    """
    for manager in self._managers.values():
      with _readable_errors(None):
        manager.wait_until_finished()
        manager.check_for_errors()

  def steps(self, which: str = "last") -> list[int]:
    """Steps of the finished checkpoints, newest first."""
    return sorted(self._managers[which].all_steps(), reverse=True)

  def restore(self, which: str, opt_structure, at_most: int | None = None) -> tuple[State, dict] | None:
    """The newest readable checkpoint, or None where there is none.

    An unreadable one is named in a warning, and the one before it is tried.

    Args:
      which: "last" or "best".
      opt_structure: (meta) -> abstract optimiser states of the stage that the meta names.
      at_most: leaves later steps alone.

    Raises:
      ValueError: there are checkpoints but none can be read.
    """
    return self._newest(which, opt_structure, at_most)

  def restore_model(self, which: str) -> tuple[State, dict] | None:
    """As `restore`, without the optimisers: all that scoring needs."""
    return self._newest(which, None)

  def _newest(self, which, opt_structure, at_most=None):
    errors = []
    for step in (s for s in self.steps(which) if at_most is None or s <= at_most):
      try:
        found = self._read(which, step, opt_structure)
      except Exception as e:
        manager = self._managers[which]
        if not (pathlib.Path(manager.directory) / str(step)).exists():
          manager.reload()  # a training that runs has replaced it by a newer one
          return self._newest(which, opt_structure, at_most) if self.steps(which) else None
        # Orbax, TensorStore and JSON raise many types for a damaged file; each means "try an older
        # one". Whoever wants to see where: --verbosity=1.
        logging.debug("Checkpoint of step %d", step, exc_info=True)
        self._damaged[which].add(step)
        errors.append(f"step {step}: {_one_line(e)}")
        logging.warning("Checkpoint %s of step %d cannot be read (%s).", which, step, _one_line(e))
        continue
      if errors:
        logging.warning("Falling back to the checkpoint of step %d.", step)
      self._sound[which].add(step)
      return found
    if errors:
      raise UserError(f"no checkpoint under {self._managers[which].directory} can be read: "
                      f"{'; '.join(errors)}. Restore a copy, or delete the folder to train afresh")
    return None

  def _read(self, which, step, opt_structure):
    """(state, meta) of one step; any exception means that it is damaged."""
    manager = self._managers[which]
    check_files(pathlib.Path(manager.directory) / str(step))
    meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
    method, opt = self._method_name(), {}
    signed = checksums.check_meta(meta, checksums.META if opt_structure else ("checksum",), method)
    model = _fill_empty(manager.restore(step, args=ocp.args.Composite(
        model=ocp.args.StandardRestore(_on_devices(_saved_tree(manager, step)))))["model"])
    if checksum(model["params"]) != meta["checksum"] or not checksums.agrees(signed, "model", model):
      raise ValueError("checksum differs")
    meta = upgrade.meta(method, meta)
    if opt_structure:
      wanted = upgrade.networks_as_saved(method, opt_structure(meta), model["params"])
      opt = manager.restore(step, args=ocp.args.Composite(
          opt=ocp.args.StandardRestore({"opt": _on_devices(wanted)})))["opt"]["opt"]
      if not checksums.agrees(signed, "opt", opt):
        raise ValueError("checksum of the optimiser differs")
    renamed: dict[str, Any] = {k: upgrade.networks(method, v) if k in ("params", "stats") else v
               for k, v in model.items()}
    return State(opt=upgrade.networks(method, opt), **renamed), meta

  def _method_name(self) -> str:
    """Of the run's config.json, which says whose older names a checkpoint may have; "" without one."""
    path = self._workdir / "config.json"
    return upgrade.method_of(read_json(path, "restore it from a copy")) if path.is_file() else ""

  def sound(self, which: str) -> bool:
    """True where every checkpoint can be read; the next save puts those aside that cannot."""
    return not [step for step in self.steps(which) if not self._find_out(which, step)]

  def _find_out(self, which, step) -> bool:
    """Whether a checkpoint that another process wrote is sound."""
    try:
      self._read(which, step, None)
      self._sound[which].add(step)
      return True
    except Exception as e:
      logging.warning("Checkpoint %s of step %d cannot be read (%s).", which, step, _one_line(e))
      self._damaged[which].add(step)
      return False

  def _put_aside(self, which):
    if not self._damaged[which]:
      return
    self.wait()
    manager = self._managers[which]
    folder = pathlib.Path(manager.directory)
    aside = folder.with_name(f"{which}.damaged")
    pairs = [(folder / str(step), next(t for n in itertools.count() if not (
        t := aside / (f"{step}" if n == 0 else f"{step}.{n}")).exists())) for step in self._damaged[which]]
    self._move(pairs)
    for _, target in pairs:
      logging.warning("Put aside: %s", target)
    self._damaged[which].clear()
    manager.reload()

  def close(self) -> None:
    """Waits for running saves and frees the managers."""
    self.wait()
    for manager in self._managers.values():
      manager.close()


def finished_steps(workdir: str | os.PathLike) -> set[int]:
  """Steps of the finished "last" checkpoints of a workdir, without opening any."""
  folder = pathlib.Path(workdir) / "checkpoints" / "last"
  return {int(p.name) for p in folder.glob("*") if p.name.isdigit()}


def batch_spec(batch) -> dict[str, Any]:
  """{key: [shape, dtype]} of a nested batch."""
  return {k: batch_spec(v) if hasattr(v, "items") else [list(np.shape(v)), str(np.asarray(v).dtype)]
          for k, v in batch.items()}


def zeros_of(spec) -> dict[str, Any]:
  """A batch of zeros with the shapes that `batch_spec` noted."""
  return {k: zeros_of(v) if isinstance(v, dict) else np.zeros(v[0], v[1]) for k, v in spec.items()}


def _manager(folder: pathlib.Path, keep: int) -> ocp.CheckpointManager:
  options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
  for pattern in ("*", "*/*"):  # the manager opens some of these
    check_files(folder, pattern)
  # Handlers by name: without them a manager that has not saved gives no metadata, and arrays would
  # be restored onto the devices that saved them, which need not exist here.
  handlers = {"model": ocp.StandardCheckpointHandler(), "opt": ocp.StandardCheckpointHandler(),
              "meta": ocp.JsonCheckpointHandler()}
  return ocp.CheckpointManager(folder, options=options, item_handlers=handlers)


def _saved_tree(manager, step):
  """Shapes and dtypes of the saved model, as a tree of plain dicts."""
  metadata = manager.item_metadata(step)["model"]
  tree = getattr(metadata, "tree", metadata)
  return jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype), tree,
                      is_leaf=lambda m: hasattr(m, "shape"))


def _on_devices(tree):
  """Abstract arrays with the sharding of *this* run: without it Orbax wants the saved topology."""
  sharding = parallel.replicated()
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def _fill_empty(model):
  return {"params": {}, "stats": {}, "extra": {}, **{k: v for k, v in model.items() if v is not None}}


def _one_line(error: Exception) -> str:
  return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


class _readable_errors:
  """Turns a failed save into one OSError line that says what is left."""

  def __init__(self, step):
    self.step = step

  def __enter__(self):
    return self

  def __exit__(self, kind, error, trace):
    if error is None or isinstance(error, (KeyboardInterrupt, SystemExit)):
      return False
    where = f"the checkpoint of step {self.step}" if self.step is not None else "a checkpoint"
    text = str(error)
    full = "No space left" in text or "ENOSPC" in text or "RESOURCE_EXHAUSTED" in text
    hint = "the disk is full; free some space and start the same command again" if full else text
    raise OSError(f"{where} could not be saved: {hint.splitlines()[0][:300]}. "
                  "Earlier checkpoints are kept.") from error
