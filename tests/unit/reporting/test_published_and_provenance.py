"""Figures of the papers, pictures inside a page, and where a result comes from: command and commit."""

import base64
import re
import subprocess
import sys

import pytest

import medae_jax
from medae_jax.reporting import display, page, provenance
from medae_jax.reporting.benchmark import published
from medae_jax.serving import answers

# Image AUROC in per cent, read off the texts of published.SOURCES: {(row, column): (value, spread, source)}.
QUOTED = {
    ("deep_geo reproduce", "cifar10"): [(86.0, None, "geo")],
    ("deep_if reproduce", "cifar10"): [(88.2, 6.6, "if")],
    ("deep_if reproduce", "svhn"): [(55.4, 4.1, "if")],
    ("deep_if reproduce", "nih subset"): [(76.6, None, "dpa"), (76.0, None, "rerun")],
    ("deep_if with_cv", "camelyon16"): [(89.5, None, "dpa")],
    ("deep_if with_cv", "nih subset"): [(87.3, None, "dpa")],
    ("piad paper2019", "cifar10"): [(79.9, None, "piad")],
    ("piad with_cv", "camelyon16"): [(90.6, None, "dpa")],
    ("piad with_cv", "nih subset"): [(88.0, None, "dpa"), (88.5, None, "rerun")],
    ("dpa wo_pg", "nih subset"): [(92.0, None, "dpa"), (92.5, None, "rerun")],
    ("dpa pg", "camelyon16"): [(93.4, None, "dpa")], ("dpa pg", "nih subset"): [(92.6, None, "dpa")]}


def test_figures_of_the_papers():
  percent = lambda v: v if v is None else round(100 * v, 6)
  assert {key: [(percent(f.mean), percent(f.std), f.source) for f in published.figures(*key)]
          for key in QUOTED} == QUOTED
  assert len(published.FIGURES) == sum(map(len, QUOTED.values()))
  assert published.IMAGES == {"cifar10": 10_000, "svhn": 26_032, "camelyon16": 4_817, "nih subset": 677 + 667,
                              "nih AP": 14_500, "nih PA": 11_096}
  assert {f.source for f in published.FIGURES} == set(published.SOURCES)


@pytest.mark.parametrize("method, data, trunk, images, said", [
    ("dpa pg", "cifar10", "vgg19, vgg19.pth", 10_000, ""), ("dpa", "cifar10", "vgg19, vgg19.pth", None, ""),
    ("dpa", "cifar10", "vgg19, random", 10_000, ", other trunk"),
    ("piad with_cv", "svhn", "vgg16, vgg16.npz", 26_032, ", other trunk"),
    ("deep_geo", "svhn", "", 10_000, ", other images"), ("other", "x", "vgg16", 3, ", other images"),
    ("deep_if", "nih AP", "vgg19, vgg19.pth", 5, ", other trunk, other images")])
def test_why_a_number_is_not_that_of_the_papers(method, data, trunk, images, said):
  assert published.differences(method, data, trunk, images) == said


def test_bytes_of_pictures_are_the_base64_that_browsers_read(tmp_path):
  """These bytes have "+" and "/" in it: the alphabet of URLs has others, which make no picture."""
  data = b"\x89PNG" + bytes(range(256))
  (tmp_path / "a.png").write_bytes(data)
  filtered = str(page._templates().filters["png"](data))
  inline = re.search("src='([^']+)'", display.image(data, "a picture"))[1]
  assert filtered == inline and "+" in inline and "/v8=" in inline
  head, _, body = filtered.partition(",")
  assert head == "data:image/png;base64" and base64.b64decode(body, validate=True) == data
  assert answers._file(tmp_path, tmp_path / "a.png")["base64"] == body


@pytest.fixture
def checkout(tmp_path, monkeypatch):
  """A folder with the package in it, no repository yet."""
  package = tmp_path / "place/medae_jax/__init__.py"
  package.parent.mkdir(parents=True)
  package.write_text("")
  monkeypatch.setattr(medae_jax, "__file__", str(package))
  return tmp_path / "place"


def _git(folder, *words):
  return subprocess.run(["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t", *words],
                        capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_that_of_the_checkout_and_says_whether_files_were_changed(checkout, monkeypatch):
  commit = provenance.commit.__wrapped__  # it is kept for the length of a process
  assert commit() == ""  # installed, no checkout
  _git(checkout.parent, "init", "-q")  # an environment inside of somebody's project
  _git(checkout.parent, "commit", "-qm", "theirs", "--allow-empty")
  assert commit() == ""
  _git(checkout, "init", "-q")
  assert commit() == ""  # nothing committed yet
  _git(checkout, "add", "-A")
  _git(checkout, "commit", "-qm", "first")
  head = _git(checkout, "rev-parse", "HEAD")
  assert commit() == head[:12]
  (checkout / "notes.txt").write_text("mine")
  assert commit() == head[:12]  # a file of no commit changes nothing
  (checkout / "medae_jax/__init__.py").write_text("x = 1\n")
  assert commit() == head[:12] + "+"
  monkeypatch.setenv("PATH", str(checkout))  # no git
  assert commit() == ""


@pytest.mark.parametrize("words, command", [
    (["/usr/bin/python", "launch.py", "--mode=train", "--workdir=my runs/a"],
     "python launch.py --mode=train '--workdir=my runs/a'"),
    (["/opt/bin/medae-jax", "--config=c.py"], "medae-jax --config=c.py"),
    (["python", "-m", "pytest", "-q"], ""), (["ipython", "kernel"], "")])
def test_the_command_is_that_of_the_shell(monkeypatch, words, command):
  monkeypatch.setattr(sys, "orig_argv", words)
  assert provenance.command() == command
  assert provenance.about()["command"] == command
