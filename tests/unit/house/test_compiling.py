"""Programs of the tests share contexts (compiling.py), some hundred each, and are what they were."""

import jax
import jax.numpy as jnp
import pytest

from tests.unit.house import compiling


def lowered(i):
  return jax.jit(lambda x: jnp.sin(x) + i).lower(1.0).compiler_ir()


@pytest.mark.skipif(not jax.__version__.startswith("0.10."), reason="JAX 0.11 keeps its contexts itself")
def test_a_context_serves_many_programs_and_goes():
  contexts = [lowered(i).context for i in range(compiling.PROGRAMS + 2)]
  assert len({id(c) for c in contexts}) == 2


def test_programs_in_one_context_are_programs_of_their_own():
  one, two = lowered(1), lowered(2)
  assert str(one) != str(two) and str(one) == str(lowered(1)) and one.operation.verify()
