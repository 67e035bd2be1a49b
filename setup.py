"""What pyproject.toml cannot say: configs and data_pipelines go inside medae_jax.

Why, and what that means for files of users: CONTRIBUTING.md, "Packaging".
"""

import pathlib
import re

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

MOVED = ("configs", "data_pipelines")
# `from configs import common`, and commands shown to users: `python -m data_pipelines.prepare.pairs`
_NAMED = re.compile(rf"(^[ \t]*(?:from|import)[ \t]+|-m )({'|'.join(MOVED)})(?=[.\s])",
                    re.MULTILINE)


class BuildInside(build_py):
  """Copies modules as they are, except that the moved packages are imported from medae_jax."""

  def build_module(self, module, module_file, package):
    target, copied = super().build_module(module, module_file, package)
    path = pathlib.Path(target)
    text = path.read_text(encoding="utf-8")
    path.write_text(_NAMED.sub(r"\1medae_jax.\2", text), encoding="utf-8")
    return target, copied


def requirements(file: str) -> list[str]:
  """The packages that `file` itself names."""
  text = pathlib.Path(file).read_text(encoding="utf-8")
  lines = (line.partition("#")[0].strip() for line in text.splitlines())
  return [line for line in lines if line and not line.startswith("-")]


setup(
    packages=[*find_packages(include=["medae_jax*"]), "medae_jax.examples",
              *(f"medae_jax.{p}" for p in find_packages(include=[f"{m}*" for m in MOVED]))],
    package_dir={f"medae_jax.{folder}": folder for folder in (*MOVED, "examples")},
    package_data={"": ["*.npz", "*.json", "templates/*"]},
    extras_require={
        "dev": requirements("requirements-dev.txt"),
        # codecs (pylibjpeg-libjpeg is under the GPL), and DICOM SEG out
        "dicom": ["highdicom>=0.27,<0.29", "pyjpegls>=1.2", "pylibjpeg>=2.0", "pylibjpeg-libjpeg>=2.1",
                  "pylibjpeg-openjpeg>=2.0"],
        # readers (tiffslide: where OpenSlide has no build, and OME-TIFF) and the writer of heat maps
        "slides": ["openslide-python>=1.4,<2", "openslide-bin>=4,<5", "tifffile>=2025.5",
                   "imagecodecs>=2025.3", "tiffslide>=3,<5"],
        "mlflow": ["mlflow-skinny>=3"],
        "wandb": ["wandb>=0.19"],
        "notebook": ["pandas>=2.2", "matplotlib>=3.9", "ipywidgets>=8"],
        # prepares slides on clusters; it asks for Pillow < 13 and protobuf < 7
        "beam": ["apache-beam>=2.70,<3"],
        "onnx": ["jax2onnx>=0.17,<0.18", "onnxruntime>=1.20"],  # --formats=onnx
        "serve": ["fastapi>=0.115", "uvicorn>=0.30", "python-multipart>=0.0.20"],  # --mode=serve
        "opencv": ["opencv-python-headless>=4.10"],
        "docs": ["mkdocs-material>=9.6,<10"],  # make docs
        "cuda": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
    },
    cmdclass={"build_py": BuildInside},
)
