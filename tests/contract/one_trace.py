"""Runs of one config trace and compile their programs once, in files that train it again and again.

A run that is resumed, or looked at by another test, has the step of the one before it. Tracing that anew
takes longer than all else in such a test: files ask for the fixture `one_trace` (tests/conftest.py). What a
new process makes of a checkpoint is tested where a process is the point (tests/e2e/test_robustness.py).
"""

import contextlib
import inspect

import jax
import pytest

from medae_jax.core import parallel
from medae_jax.training import validate


@contextlib.contextmanager
def shared():
  """Inside, a training step and a validation of equal configs are one program."""
  steps, validations, make, programs = {}, {}, parallel.train_step_fn, validate._programs

  def step_fn(step, key, *, resident=None, sample=None, **options):
    found = inspect.getclosurevars(step).nonlocals
    if resident is not None or not {"method", "stage"} <= set(found):
      return make(step, key, resident=resident, sample=sample, **options)
    same = (_of(found["method"]), repr(found["stage"]), jax.random.key_data(key).tobytes(),
            *sorted(options.items()))
    if same not in steps:
      steps[same] = make(step, key, sample=sample, **options)
    return steps[same]

  def programs_of(method):
    if _of(method) not in validations:
      validations[_of(method)] = programs(method)
    return validations[_of(method)]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(parallel, "train_step_fn", step_fn)
    patch.setattr(validate, "_programs", programs_of)
    yield


def _of(method):
  method = vars(method).get("_method", method)  # tests/watched.py
  return type(method), method.config.to_json_best_effort(sort_keys=True)
