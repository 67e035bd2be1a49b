"""At least 100 kills (SIGKILL) at random moments over all modes: nothing lost, nothing half, bit for bit.

  python -m pytest tests/campaign -m campaign -q -s -k kills

Each kind runs once undisturbed; then it is killed at moments that a seed draws, half of them over its whole
length in seconds of processor, half where something is being written, and started again with the same
command until it is done. MEDAE_KILLS=0.1 makes a tenth of the kills, MEDAE_KILLS_SEED=1 others.
"""

import dataclasses
import os
import statistics
import zlib

import numpy as np
from PIL import Image
import pytest

from data_pipelines.datasets import synthetic
from tests import slide_files
from tests.campaign import finished, kill
from tests.campaign.kill import Work
from tests.unit.one_class import radiograph_parts
from tests.unit.slides import camelyon_folder

pytestmark = pytest.mark.campaign
SHARE, SEED = float(os.environ.get("MEDAE_KILLS", "1")), int(os.environ.get("MEDAE_KILLS_SEED", "0"))

_SIZES = ["--config.train.steps=24", "--config.train.save_every=3", "--config.train.eval_every=6",
          "--config.eval.bootstrap=20"]
_DAE = ["launch.py", "--config=configs/dae_brats.py:smoke", *_SIZES]
_DPA = ["launch.py", "--config=configs/dpa_nih.py:smoke", "--config.train.save_every=1",
        "--config.train.log_every=1", "--config.eval.bootstrap=20"]
_FROZEN = ["launch.py", "--config=configs/frozen_camelyon16.py:smoke", "--config.eval.bootstrap=20"]
_SLIDE = ["--config.predict.slide.tile=32", "--config.predict.slide.magnification=40",
          "--config.predict.batch_size=4"]
_SAVES = ("checkpoints/*/*tmp*", "evaluation/*", "*.tmp", "*.json", "*.html", "stages/*")
_STORE = ("out/*/*", "out/*/*/*", "out/.unfinished/*/*", "out/*.*")
_GRID = """
from configs import common, dae_brats
import ml_collections

def get_config(arg=None):
  a = common.parse_arg(arg, run=0, sweep=False)
  c = ml_collections.ConfigDict(dae_brats.get_config("smoke").to_dict())
  c.seed = a.run
  c.train.update(steps=6, save_every=2, eval_every=3)
  c.eval.bootstrap = 20
  if a.sweep:
    c.sweep = dict(config=__file__, arg="", grid={"run": (0, 1)}, average=(), settings=(), folds=0,
                   final_steps="", split="test", metric="pixel_ap", together=1, shard=(0, 1))
  return c.lock()
"""


def _below(folder, patterns):
  return tuple(f"{folder}/{p}" for p in patterns)


def _workdir(name, command, **fields):
  folder = "w/seed_*" if "seeds" in name else "w/runs/*" if name == "sweep" else "w"
  return Work(name, lambda f: [*command, f"--workdir={f / 'w'}"], "w", finished.workdirs,
              (*_below(folder, _SAVES), "w/*.json", "w/table.*"), **fields)


def _grid(folder):
  (folder / "grid.py").write_text(_GRID)


def _scans(folder, count=6):
  if not (folder / "scans").exists():
    synthetic.write_nifti(folder / "scans", count, shape=(32, 32, 4))


def _labelled(folder):
  rng, rows = np.random.default_rng(0), ["image,mask,split"]
  for kind in ("i", "m"):
    (folder / "set" / kind).mkdir(parents=True, exist_ok=True)
  for n in range(24):
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(folder / "set" / "i" / f"{n}.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[10:30 + n, 12:40] = 255
    Image.fromarray(mask).save(folder / "set" / "m" / f"{n}.png")
    rows.append(f"i/{n}.png,m/{n}.png,{'train' if n < 18 else 'val' if n < 21 else 'test'}")
  (folder / "set" / "labels.csv").write_text("\n".join(rows) + "\n")


def _prepare(name, partial, watch, arguments, **fields):
  return Work(f"prepare {name}", lambda f: ["-m", "data_pipelines.prepare", name, *arguments(f)], "out",
              partial, watch, **fields)


def kinds(trained, inputs):
  """{name: (kind, kills)}; `trained` is a finished workdir, `inputs` a folder with scans and a set."""
  scans = inputs / "scans"
  return {w.name: (w, n) for w, n in [
      (_workdir("train dae", _DAE, trains=True), 20),
      (_workdir("train dpa, stages", _DPA, trains=True), 8),
      (_workdir("train dae, two seeds together", [*_DAE, "--config.seeds=(0,1)"], trains=True), 10),
      (Work("sweep", lambda f: ["launch.py", "--mode=sweep", f"--config={f.parent / 'grid.py'}:sweep",
                                f"--workdir={f / 'w'}"], "w", finished.workdirs,
            (*_below("w/runs/*", _SAVES), "w/*.json", "w/table.*"), lambda f: _grid(f.parent)), 8),
      (Work("evaluate", lambda f: ["launch.py", "--mode=evaluate", f"--workdir={f / 'w'}"], "w",
            finished.workdirs, _below("w", _SAVES), lambda f: _copy_run(trained, f / "w")), 10),
      (Work("predict", lambda f: ["launch.py", "--mode=predict", f"--workdir={trained}", f"--input={scans}",
                                  f"--output={f / 'out'}"], "out", finished.predictions,
            ("out/*", "out/*/*")), 12),
      (Work("predict slide", lambda f: ["launch.py", "--mode=predict", f"--workdir={trained}", *_SLIDE,
                                        f"--input={inputs / 'whole'}", f"--output={f / 'out'}"], "out",
            finished.predictions, ("out/*", "out/*/*", "out/.*/*")), 20),
      (Work("export", lambda f: ["launch.py", "--mode=export", f"--workdir={trained}",
                                 f"--output={f / 'out'}"], "out", finished.everything(""),
            (".out*", ".out*/*", ".out*/*/*", "out")), 10),
      (_prepare("brats", finished.everything("manifest.json"), ("out/*", "out/.*.tmp", "out/records/*",
                                                              "out/records/.*"),
                lambda f: [f"--dir={scans}", f"--prepared_dir={f / 'out'}", "--workers=2"]), 12),
      (_prepare("pairs", finished.everything(""), (".out*/*", ".out*/*/*", "out/*/*"),
                lambda f: [f"--out={f / 'out'}", "--copies=3"], once=True), 12),
      (_prepare("noisy_study", finished.everything(""), (".out*/*", ".out*/*/*/*", "out/*/*/*"),
                lambda f: [f"--dir={inputs / 'set'}", f"--out={f / 'out'}", "--clean=3"], once=True), 12),
      (_prepare("camelyon16", finished.everything("report.json"), _STORE, lambda f: [
          f"--source={inputs / 'slides'}", f"--target={f / 'out'}", "--border=0", "--per_slide=2",
          "--workers=2", *camelyon_folder.TARGET]), 20),
      (_prepare("nih", finished.everything("report.json"), _STORE, lambda f: [
          f"--source={inputs / 'radiographs'}", f"--target={f / 'out'}", "--workers=2"]), 8),
  ]}


NAMES = ("train dae", "train dpa, stages", "train dae, two seeds together", "sweep", "evaluate", "predict",
         "predict slide", "export", "prepare brats", "prepare pairs", "prepare noisy_study",
         "prepare camelyon16", "prepare nih")


def _copy_run(trained, workdir):
  """A trained run without what evaluate writes."""
  import shutil
  shutil.copytree(trained, workdir, ignore=shutil.ignore_patterns("evaluation", "calibration.json",
                                                                  "report.html", ".*.lock"))


@dataclasses.dataclass
class Row:
  """What is printed of a kind."""
  kills: int = 0
  resumes: int = 0
  lost: int = 0
  partial: int = 0
  unequal: int = 0
  refused: int = 0
  seconds: list[float] = dataclasses.field(default_factory=list)
  steps: list[int] = dataclasses.field(default_factory=list)

  def text(self, name):
    """One line of the table."""
    middle = lambda v: f"{statistics.median(v):.3g}" if v else "-"
    return (f"| {name} | {self.kills} | {self.resumes} | {self.lost} | {self.partial} | {self.unequal} | "
            f"{self.refused} | {middle(self.seconds)} | {middle(self.steps)} |")


HEAD = ("| kind of run | kills | resumes | lost | partial | unequal | refused | median s of processor a kill "
        "cost | median steps |\n|---|---|---|---|---|---|---|---|---|")


@pytest.fixture(scope="module")
def table():
  """{name: Row}; printed at the end."""
  rows = {}
  yield rows
  total = Row(*(sum(getattr(r, k) for r in rows.values())
                for k in ("kills", "resumes", "lost", "partial", "unequal", "refused")))
  print(f"\n{HEAD}\n" + "\n".join(r.text(n) for n, r in rows.items()) + "\n" + total.text("**all**"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """Folder of the campaign: inputs, references, programs. MEDAE_KILLS_CACHE keeps the programs."""
  root = tmp_path_factory.mktemp("kills")
  _scans(root)
  _labelled(root)
  camelyon_folder.write(root / "slides", test=False)
  radiograph_parts.write(root / "radiographs")
  (root / "whole").mkdir()
  for n in range(2):
    slide_files.write_slide(root / "whole" / f"s{n}.tif", slide_files.tissue(520, 700, n))
  return root


@pytest.fixture(scope="module")
def cache(place):
  """The compilation cache of all runs."""
  import pathlib
  found = pathlib.Path(os.environ.get("MEDAE_KILLS_CACHE", place / "cache"))
  found.mkdir(parents=True, exist_ok=True)
  return found


@pytest.fixture(scope="module")
def trained(place, cache):
  """A run that predict, export and evaluate use."""
  work = _workdir("train dae", _DAE)
  (place / "trained").mkdir()
  assert kill.attempt(work, place / "trained", cache).code == 0
  return place / "trained" / "w"


@pytest.fixture(scope="module")
def patch_run(place, cache):
  """A run on image patches, for slides."""
  (place / "patches").mkdir()
  assert kill.attempt(_workdir("train frozen", _FROZEN), place / "patches", cache).code == 0
  return place / "patches" / "w"


@pytest.mark.parametrize("name", NAMES)
def test_kills(name, table, place, cache, request):
  needed = {**dict.fromkeys(("predict", "export", "evaluate"), "trained"), "predict slide": "patch_run"}
  work, count = kinds(request.getfixturevalue(needed[name]) if name in needed else place, place)[name]
  count = max(1, round(count * SHARE))
  folder = place / name.replace(" ", "_").replace(",", "")
  reference = folder / "reference"
  for again in ("first", "reference"):  # the first one compiles
    (folder / again).mkdir(parents=True)
    work.before(folder / again)
    whole = kill.attempt(work, folder / again, cache)
    assert whole.code == 0, whole.said[-2000:]
  wrong = _compared(work, folder / "first", reference)
  assert not wrong, f"two undisturbed runs differ: {wrong[:5]}"
  rng, row, problems = np.random.default_rng([SEED, zlib.crc32(name.encode())]), Row(), []
  table[name] = row
  for number in range(4 * count):
    if row.kills >= count:
      break
    done = kill.chain(work, reference, whole, folder / f"chain{number}", cache, rng, count - row.kills)
    unequal = _compared(work, folder / f"chain{number}", reference)
    row.kills, row.resumes = row.kills + done.kills, row.resumes + done.resumes
    row.lost, row.partial = row.lost + len(done.lost), row.partial + len(done.partial)
    row.unequal, row.refused = row.unequal + bool(unequal), row.refused + len(done.refused)
    row.steps += done.steps
    row.seconds += [(done.seconds - whole.seconds) / done.kills] if done.kills else []
    for what in ("lost", "partial", "refused"):
      problems += [f"chain{number}: {what}: {x}" for x in getattr(done, what)]
    problems += [f"chain{number}: {x}" for x in unequal]
  print(f"\n{row.text(name)} undisturbed {whole.seconds:.1f} s, {whole.seen} sights")
  assert row.kills >= count, "too many runs were done before their kill"
  assert not problems, "\n".join(problems[:20])


def _compared(work, folder, reference):
  ours, theirs = folder / work.results, reference / work.results
  return [*finished.differences(ours, theirs), *finished.checkpoints(ours, theirs),
          *finished.litter(folder)]
