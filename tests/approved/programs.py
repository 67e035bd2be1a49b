"""The programs of every method, as JAX traces them: what is computed, of which shapes, with which numbers.

Nothing is compiled. A number that is lost, a stride, a cast, a norm that is told the wrong thing, a gradient
that is stopped or not: each changes a count or a number. `wiring` changes with the order, too. JAX names
what it traces otherwise in each version, so that these texts hold for one: they say which.
"""

import collections
import functools
import hashlib

import jax
import numpy as np

from medae_jax.core import method as method_lib
from medae_jax.models.layers import conv_forms
from tests.unit.models.test_every_method import METHODS, equations, opened

_SHOWN = ("window_strides", "padding", "lhs_dilation", "rhs_dilation", "feature_group_count", "axes",
          "dimension", "window_dimensions", "y", "new_dtype", "exponent")
# Steps that others among these have all of: their scores alone
_SCORE_ALONE = ("ae_cxr:ae_d,smoke", "ae_cxr:dae,smoke")
_LARGE = ("conv_general_dilated", "dot_general", "reduce_window_max", "concatenate")


def _literals(jaxpr):
  for equation in equations(jaxpr):
    for value in equation.invars:
      if isinstance(value, jax.extend.core.Literal) and np.ndim(value.val) == 0 and (
          np.asarray(value.val).dtype.kind not in "biu"):
        yield f"{float(value.val):.5g}"


def _line(equation):
  shown = [f"{k}={equation.params[k]}" for k in _SHOWN if k in equation.params]
  out = equation.outvars[0].aval if equation.outvars else ""
  large = equation.primitive.name in _LARGE
  return " ".join([equation.primitive.name, *shown, f"-> {out.str_short()}" if large else ""]).rstrip()


def _text(program) -> str:
  """Counts of operations, and of numbers among their arguments."""
  lines = collections.Counter(map(_line, equations(program.jaxpr)))
  numbers = collections.Counter(_literals(program.jaxpr))
  return "\n".join([*(f"{n:4d} {line}" for line, n in sorted(lines.items())),
                    "numbers " + ", ".join(f"{n} x {k}" for k, n in sorted(numbers.items())),
                    f"wiring {_wiring(program.jaxpr)}"])


def _wiring(jaxpr) -> str:
  """Checksum of the operations in their order, each with the places where its arguments come from."""
  places: dict[int, int] = {}
  place = lambda v: f"{v.val!r}" if hasattr(v, "val") else places.setdefault(id(v), len(places))
  told = [f"{_line(e)} {list(map(place, e.invars))} {list(map(place, e.outvars))}" for e in equations(jaxpr)]
  return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]


def of_another_version(text: str) -> bool:
  """Whether a text was written with another JAX than the one that is here."""
  return text.startswith("jax ") and text.splitlines()[0] != f"jax {jax.__version__}"


def case(name, folder):
  """Score and training step of a config's method."""
  del folder
  method, state, batch = opened(name)
  stages = method_lib.stages_of(method)
  with conv_forms.never():  # forms of convolutions that this processor likes
    parts = {"score": jax.make_jaxpr(method.score)(state, {k: batch[k] for k in method.score_needs})}
    if stages and name not in _SCORE_ALONE:
      parts["step"] = jax.make_jaxpr(functools.partial(method.train_step, stage=stages[-1], axis_name=None))(
          state, batch, jax.random.key(0))
  return "\n".join([f"jax {jax.__version__}", *(f"==== {k}\n{_text(v)}" for k, v in parts.items())])



def title(name: str) -> str:
  """Of the text of a config's programs."""
  return "program_" + name.replace(":", "_").replace(",", "_")


CASES = {title(name): functools.partial(case, name) for name in METHODS}
