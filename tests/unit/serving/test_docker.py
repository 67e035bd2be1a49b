"""The Dockerfile: no daemon here, so its instructions are read and its commands run in this process."""

import fnmatch
import json
import os
import pathlib
import re
import shlex

from medae_jax import serve
from tests import console
from tests.contract.cases import ROOT
from tests.unit.modes.test_predict import brain, save

_TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
_INSIDE = {"/model": "run", "/in": "in", "/out": "out"}


def instructions():
  """[(INSTRUCTION, rest)] of the Dockerfile."""
  lines = [line for line in _TEXT.splitlines() if line and not line.startswith("#")]
  return [tuple(line.split(" ", 1)) for line in lines]


def started(command, folder):
  """What `docker run` starts: arguments of the console, with folders of here where volumes are mounted."""
  given = dict(instructions())
  words = shlex.split(command)
  at = words.index("medae")
  mounted = [words[i + 1].split(":")[1] for i in range(at) if words[i] == "-v"]
  called = json.loads(given["ENTRYPOINT"]) + (words[at + 1:] or json.loads(given["CMD"]))
  assert called[0] == "medae"
  for arg in called[1:]:
    value = arg.partition("=")[2]
    assert not value.startswith("/") or value in mounted, f"{value} is not mounted by {command}"
  return [re.sub(r"=(/\w+)$", lambda m: f"={folder / _INSIDE[m[1]]}", arg) for arg in called[1:]]


def commands():
  """The two `docker run` of the Dockerfile; docs/serve.md has the same."""
  found = [line[1:].strip() for line in _TEXT.splitlines() if "docker run" in line]
  docs = (ROOT / "docs/serve.md").read_text(encoding="utf-8")
  assert len(found) == 2 and all(line in docs for line in found)
  return found


def test_a_folder_goes_in_and_a_folder_comes_out(served_run, tmp_path, monkeypatch):
  os.symlink(served_run, tmp_path / "run")
  save(tmp_path / "in", brain())
  monkeypatch.setenv("MEDAE_JAX_ALLOW_CODE", "1")
  code, said = console.call(*started(commands()[0], tmp_path))
  assert code == 0, said
  assert {"p1_anomaly.nii.gz", "p1_mask.nii.gz", "predictions.csv"} <= {
      p.name for p in (tmp_path / "out").iterdir()}


def test_the_page_listens_where_the_port_is_published(served_run, tmp_path, monkeypatch):
  os.symlink(served_run, tmp_path / "run")
  called = {}
  monkeypatch.setattr(serve, "serve", lambda workdir, changed, **more: called.update(more, workdir=workdir))
  code, said = console.call(*started(commands()[1], tmp_path))
  assert code == 0, said
  assert called["host"] == "0.0.0.0" and pathlib.Path(called["workdir"]) == tmp_path / "run"
  port = re.search(r"-p 127\.0\.0\.1:\d+:(\d+) ", commands()[1])[1]
  assert ("EXPOSE", port) in instructions() and called["port"] == int(port)


def test_the_image_gets_what_it_installs_and_no_more():
  given = [name for name, _ in instructions()]
  assert given[0] == "FROM" and given.index("COPY") < given.index("RUN") < given.index("USER")
  assert '"/src[serve]"' in dict(instructions())["RUN"]
  lines = (ROOT / ".dockerignore").read_text().split()
  kept = [line[1:] for line in lines if line.startswith("!")]
  assert lines[0] == "*" and all(list(ROOT.glob(k)) for k in kept)
  needed = ["setup.py", "pyproject.toml", "LICENSE", "README.md", "configs", "data_pipelines", "examples",
            "medae_jax", *re.findall(r"requirements[\w-]*\.txt", (ROOT / "setup.py").read_text() +
                                     (ROOT / "pyproject.toml").read_text())]
  assert not [n for n in needed if not any(fnmatch.fnmatch(n, k) for k in kept)]
