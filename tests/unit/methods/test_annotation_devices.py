"""Synchronised BatchNorm and the globally normalised loss: N devices equal one, in double precision.

The contract test compares float32 runs, where rounding flips single ReLUs; here nothing hides behind
rounding. Run in a process of its own with four forced CPU devices.
"""

import os
import subprocess
import sys

import pytest

from tests.contract import cases

SCRIPT = """
import jax, numpy as np, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
from tests.contract import cases
from medae_jax.core import method as method_lib
c = cases.load_config(cases.ROOT / "configs" / "annotation_removal.py", "smoke")
with c.unlocked():
  c.model.dtype = "float64"
rng = np.random.default_rng(0)
clean = rng.random((8, 32, 32, 3))
image, mask = clean.copy(), np.zeros((8, 32, 32, 1))
for i in range(8):  # very unequal shares of marks: a mean of local means would differ
  image[i, 2:5 + 3 * i, 3:9] = 1
  mask[i, 2:5 + 3 * i, 3:9] = 1
batch = {"image": image, "clean": clean, "mask": mask, "index": np.arange(8, dtype=np.int32)}
method = method_lib.load(c)
double = lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x
state = jax.tree.map(double, method.init(jax.random.key(0), batch))
stage, results = method_lib.stages_of(method)[0], {}
for n in (1, 4):
  step = jax.pmap(lambda s, b: method.train_step(s, b, jax.random.key(1), stage=stage,
                                                 axis_name="data"), axis_name="data",
                  in_axes=(None, 0), out_axes=(None, None), devices=jax.devices()[:n])
  new = state
  for _ in range(2):
    new, metrics = step(new, jax.tree.map(lambda a: a.reshape(n, 8 // n, *a.shape[1:]), batch))
  results[n] = jax.tree.leaves(jax.tree.map(np.asarray, (new.params, new.stats, metrics)))
for a, b in zip(results[1], results[4]):
  np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)
print("EQUAL", len(results[1]))
"""


@pytest.mark.slow
def test_four_devices_equal_one_to_rounding():
  environment = {**os.environ, "JAX_PLATFORMS": "cpu",
                 "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
  done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=cases.ROOT, env=environment, text=True,
                        capture_output=True, timeout=900, check=False)
  assert done.returncode == 0 and "EQUAL" in done.stdout, done.stderr[-2000:]
