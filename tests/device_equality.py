"""Training steps on four forced CPU devices as on one, in double precision, in a process of its own.

The contract test compares float32 runs, where rounding flips single ReLUs; here nothing hides behind
rounding.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.contract import cases

_STEPS = """
import jax, numpy as np, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
from tests.contract import cases
from medae_jax.core import method as method_lib
c = cases.load_config(cases.ROOT / "configs" / "{config}.py", "smoke")
with c.unlocked():
  c.model.dtype = "float64"
{batch}
method = method_lib.load(c)
double = lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x
state = jax.tree.map(double, method.init(jax.random.key(0), batch))
stage, results = method_lib.stages_of(method)[0], {{}}
for n in (1, 4):
  step = jax.pmap(lambda s, b: method.train_step(s, b, jax.random.key(1), stage=stage,
                                                 axis_name="data"), axis_name="data",
                  in_axes=(None, 0), out_axes=(None, None), devices=jax.devices()[:n])
  new = state
  for _ in range(2):
    new, metrics = step(new, jax.tree.map(lambda a: a.reshape(n, 8 // n, *a.shape[1:]), batch))
  results[n] = jax.tree.leaves(jax.tree.map(np.asarray, (new.params, new.stats, metrics)))
for a, b in zip(results[1], results[4]):
  np.testing.assert_allclose(a, b, rtol=0, atol={atol})
{after}
print("EQUAL", len(results[1]))
"""


def check(config: str, batch: str, atol: float, after: str = "") -> None:
  """Two steps of the :smoke variant on one and on four devices agree.

  Args:
    config: file below configs/. batch: statements that make `batch`, 8 examples.
    after: statements that follow, with `method`, the state `new` and `batch`.
  """
  script = _STEPS.format(config=config, batch=batch, atol=atol, after=after)
  environment = {**os.environ, "JAX_PLATFORMS": "cpu",
                 "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"}
  done = subprocess.run([sys.executable, "-c", script], cwd=cases.ROOT, env=environment, text=True,
                        capture_output=True, timeout=900, check=False)
  assert done.returncode == 0 and "EQUAL" in done.stdout, done.stderr[-2000:]
