"""The wheel in a virtual environment and a folder of its own: the command medae-jax equals launch.py.

The environment sees the packages of the tests' own one (nothing is downloaded), and strangers called
`configs` and `data_pipelines` that end whatever imports them.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ("medae_jax", "data_pipelines", "configs", "examples", "setup.py", "pyproject.toml",
           "MANIFEST.in", "README.md", "LICENSE", "requirements.txt", "requirements-dev.txt")
pytestmark = pytest.mark.slow


def call(command, cwd):
  """stdout and stderr of a command that must succeed; nothing of this clone on its path, XLA as it comes."""
  env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
  done = subprocess.run([str(c) for c in command], cwd=cwd, env=env, text=True, timeout=600,
                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
  assert done.returncode == 0, done.stdout[-3000:]
  return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
  """Folder bin/ of an environment with the wheel."""
  folder = tmp_path_factory.mktemp("wheel")
  clone = folder / "clone"
  clone.mkdir()
  for name in SOURCES:  # a copy: building writes beside the sources
    if (ROOT / name).is_dir():
      shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    else:
      shutil.copy(ROOT / name, clone)
  pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
  call([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, clone], folder)
  call([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], folder)
  python = folder / "venv" / "bin" / "python"
  call([*pip, f"--python={python}", "install", "--no-deps", next(folder.glob("*.whl"))], folder)
  site = pathlib.Path(call([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                           folder).strip())
  (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
  for stranger in ("configs", "data_pipelines"):
    (site / stranger).mkdir()
    (site / stranger / "__init__.py").write_text("raise SystemExit('a stranger was imported')\n")
  return python.parent


def test_wheel_trains_evaluates_predicts_and_exports(installed, tmp_path):
  run = [installed / "medae-jax", "--workdir=run"]
  listed = call([installed / "medae-jax", "--mode=list"], tmp_path)
  for name in ("dae", "synthetic_textures", "configs/dae_brats.py"):
    assert f"  {name} " in listed
  assert call([installed / "medae", "--version"], tmp_path).startswith("medae_jax 0.")
  assert "\n  medae --mode=evaluate" in call([installed / "medae"], tmp_path)  # the name it was called by
  said = call([*run, "--config=dae_brats.py:smoke"], tmp_path)
  assert "Pixel average precision" in said
  assert (tmp_path / "run" / "report.html").is_file()
  # One process for both: nothing of the command is left to see, and imports take seconds.
  script = ("from medae_jax import cli\n"
            "export = ['medae-jax', '--workdir=run', '--mode=export', '--output=exported']\n"
            "cli.main(cli.parse_flags(export))\n"
            "import medae_jax as mx, numpy as np\nrun = mx.load('run')\n"
            "print(run, run.score(np.zeros(run.trained.image_shape, np.float32)).map.shape)\n")
  assert "Run('run', dae, step 4) (32, 32)" in call([installed / "python", "-c", script], tmp_path)
  assert (tmp_path / "exported" / "run_exported.py").is_file()


def test_files_of_users_import_as_in_a_clone(installed, tmp_path):
  """`data_pipelines` is the copy inside medae_jax, one module object, unless the name is taken."""
  (stranger,) = installed.parent.glob("lib/*/site-packages/data_pipelines")
  done = subprocess.run([installed / "python", "-c", "import medae_jax, data_pipelines"],
                        cwd=tmp_path, text=True, capture_output=True, timeout=120)
  assert "a stranger was imported" in done.stderr
  script = ("import medae_jax\n"
            "from data_pipelines import dataset\n"
            "from medae_jax.data_pipelines import dataset as inside, errors\n"
            "from medae_jax.core.errors import UserError\n"
            "print(dataset is inside, UserError is errors.UserError, dataset.__spec__.name)\n")
  stranger.rename(tmp_path / "away")
  try:
    printed = call([installed / "python", "-c", script], tmp_path)
  finally:
    (tmp_path / "away").rename(stranger)
  assert printed.split() == ["True", "True", "medae_jax.data_pipelines.dataset"]
