"""Deep GEO on four devices as on one: training with synchronised statistics, and the Dirichlet fit.

In double precision, where nothing hides behind rounding; a process of its own with four forced CPU devices.
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
c = cases.load_config(cases.ROOT / "configs" / "deep_geo_nih.py", "smoke")
with c.unlocked():
  c.model.dtype = "float64"
image = np.random.default_rng(0).uniform(-1, 1, (8, 16, 16, 1))
batch = {"image": image, "view": np.arange(8, dtype=np.int32), "index": np.arange(8, dtype=np.int32)}
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
  np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)
# finalize takes all devices (6 images: 2 of them padding); one device with the whole in one call
new = jax.tree.map(np.asarray, new)
valid = np.arange(8) < 6
fitted = method.finalize(new, [{"image": image, "valid": valid}])
from medae_jax.scores import dirichlet
moments = dirichlet.Moments()
moments.add(jax.jit(method.log_probabilities)(new, image[:6]))
np.testing.assert_allclose(fitted.extra["alpha"], dirichlet.fit(*moments.means()).alpha, rtol=1e-5)
print("EQUAL", len(results[1]))
"""


@pytest.mark.slow
def test_four_devices_equal_one_to_rounding():
  environment = {**os.environ, "JAX_PLATFORMS": "cpu",
                 "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
  done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=cases.ROOT, env=environment, text=True,
                        capture_output=True, timeout=900, check=False)
  assert done.returncode == 0 and "EQUAL" in done.stdout, done.stderr[-2000:]
