"""At least 300 bad inputs over all modes: one line each, nothing lost, nothing half-written.

  python -m pytest tests/campaign -m campaign -q
"""
# ruff: noqa: E501

import csv
import pathlib
import resource
import shutil

import numpy as np
from PIL import Image
import pytest

from data_pipelines.datasets import synthetic
from tests import console
from tests.campaign import bad_files
from tests.campaign.outcome import COUNTS, edits, refused, survived

pytestmark = pytest.mark.campaign
CONFIGS = {"dae": "dae_brats.py:smoke", "skin": "noisy_skin.py:smoke", "annotation": "annotation_removal.py:smoke",
           "dpa": "dpa_nih.py:smoke", "piad": "piad_cifar10.py:smoke"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """{name: workdir} of trained and evaluated runs; and the count at the end."""
  root, found = tmp_path_factory.mktemp("runs"), {}
  for name, config in CONFIGS.items():
    found[name] = root / name
    code, text = console.call(f"--config=configs/{config}", f"--workdir={found[name]}")
    assert code == 0, text[-2000:]
  yield found
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
  print(f"\n{sum(COUNTS.values())} bad inputs: 0 tracebacks, 0 lost, 0 partial, 0 hangs; peak memory {peak:.1f} GB")
  for kind, n in sorted(COUNTS.items()):
    print(f"  {n:4d} {kind}")


# ------------------------------------------------------------------------------------- the command line
COMMANDS = [
    ("--mode=nonsense",), ("--mode=evaluate",), ("--mode=evaluate", "--workdir=/nowhere"), ("--mode=predict",),
    ("--mode=predict", "--workdir=/nowhere", "--input=/nowhere", "--output=/nowhere"), ("--mode=export",),
    ("--mode=convert",), ("--mode=convert", "--input=/nowhere", "--config=configs/dae_brats.py:smoke", "--workdir=W"),
    ("--mode=report",), ("--mode=report", "--workdir=/nowhere"), ("--mode=sweep",), ("--mode=bench",),
    ("--config=/nowhere.py", "--workdir=W"), ("--config=/etc/passwd", "--workdir=W"),
    ("--config=configs/dae_brats.py:nosuch", "--workdir=W"), ("--config=configs/dae_brats.py:smoke=3x", "--workdir=W"),
    ("--config=configs/dae_brats.py:smoke", "--workdir=W", "--config.nosuch=1"),
    ("--config=configs/dae_brats.py:smoke", "--workdir=W", "--nosuch=1"), ("stray",),
    ("--config=configs/dae_brats.py:smoke", "--workdir=W/a[b]"), ("--config=configs/dae_brats.py:smoke",
                                                                  "--workdir=/dev/null/x"),
]


@pytest.mark.parametrize("args", COMMANDS)
def test_command_lines(args, tmp_path):
  refused("command line", *(a.replace("=W", f"={tmp_path / 'w'}") for a in args), empty=[tmp_path / "w"])


@pytest.mark.parametrize("text", ["def get_config(:", "1/0", "import nosuch_package", "\0\1\2",
                                  "def get_config(): return 3", "def get_config(): raise KeyError('x')",
                                  "raise SystemExit(3)", "def get_config(arg=None): return {}"])
def test_config_files(text, tmp_path):
  path = tmp_path / "mine.py"
  path.write_text(text)
  refused("config file", f"--config={path}", f"--workdir={tmp_path / 'w'}", empty=[tmp_path / "w"])


VALUES = {
    "dae": ["train.steps=-1", "train.batch_size=0", "train.accum=0", "train.accum=3", "train.steps_per_call=0",
            "train.log_every=0", "train.save_every=-1", "train.keep=0", "model.dtype=float12", "model.depth=0",
            "model.wf=-1", "model.depth=9", "optim.lr=nan", "optim.schedule=x", "optim.epoch_steps=-2",
            "eval.kind=nosuch", "eval.splits=('tset',)", "eval.batch_size=0", "eval.baseline_channel=9",
            "eval.quantile=2", "eval.dice_thresholds=abc", "eval.alpha=0", "eval.components=-1",
            "method.score.erosion=-1", "method.score.median=4", "method.score.image_score=x",
            "method.score.test_noise_draws=-1", "method.score.weights_positive=(1,)", "method.name=os:system",
            "method.name=nosuch", "method.loss_over=x", "data.name=nosuch", "data.image_size=(30,31)",
            "data.modalities=()", "data.noise_res=0", "data.noise_std=-1", "data.noise_roll=x",
            "data.n_patients=(0,1,1)", "data.storage=int8", "data.dir=/nowhere", "data.orientation=LLL",
            "data.placement=x", "data.field_mm=0", "parallel.mode=x",
            "train.init_from=/nowhere", "seed=99999999999999999999999"],
    "skin": ["data.clean=0", "data.noise=nosuch:3", "data.image_size=0", "data.layout=x", "method.name=nosuch",
             "train.batch_size=-2", "optim.lr=-1"],
    "annotation": ["model.network=x", "model.width=0", "model.head=x", "method.alpha=-1", "method.alpha=nan",
                   "data.val_share=2", "data.channels=2", "eval.kind=anomaly_x", "method.loss=x"],
    "dpa": ["method.loss=x", "method.layers=r99", "method.vgg_weights=/nowhere", "model.max_res=7",
            "model.latent_res=3", "method.growing.initial_res=5", "method.growing.steps_per_stage=abc",
            "method.adversarial.name=x", "model.kind=x"],
    "piad": ["method.policy.name=x", "method.n_critic=-1", "method.ema=2", "model.variant=x", "method.layers=x"],
}


@pytest.mark.parametrize("name, change", [(n, c) for n, found in VALUES.items() for c in found])
def test_values_of_fields(name, change, tmp_path):
  refused("field of a config", f"--config=configs/{CONFIGS[name]}", f"--workdir={tmp_path / 'w'}",
          f"--config.{change}", empty=[tmp_path / "w"])


# ---------------------------------------------------------------------------------- files of a workdir
FILES = ("config.json", "calibration.json", "metrics.jsonl", "evaluation/test.json", "evaluation/val.json")


@pytest.mark.parametrize("file", FILES)
def test_text_files_of_a_workdir(runs, file, tmp_path):
  work = tmp_path / "w"
  shutil.copytree(runs["dae"], work)
  text = (work / file).read_text()
  for _, data in edits(text, 12, len(file)):
    (work / file).write_bytes(data)
    survived(f"{file} damaged, report", "--mode=report", f"--workdir={work}")
  if file in ("config.json", "calibration.json"):
    scans = tmp_path / "scans"
    synthetic.write_nifti(scans, 1, shape=(32, 32, 4))
    for k, (_, data) in enumerate(edits(text, 6, 99)):
      (work / file).write_bytes(data)
      survived(f"{file} damaged, predict", "--mode=predict", f"--workdir={work}", f"--input={scans}",
               f"--output={tmp_path / f'o{k}'}")


@pytest.mark.parametrize("kind", ["model", "opt", "meta"])
def test_damaged_checkpoints_fall_back(runs, kind, tmp_path):
  work = tmp_path / "w"
  shutil.copytree(runs["dae"], work)
  newest = max((work / "checkpoints" / "last").iterdir(), key=lambda p: int(p.name) if p.name.isdigit() else -1)
  for path in (newest / kind).rglob("*"):
    if path.is_file():
      path.write_bytes(path.read_bytes()[:3])
  survived("damaged checkpoint", f"--config=configs/{CONFIGS['dae']}", f"--workdir={work}")
  survived("damaged checkpoint", "--mode=evaluate", f"--workdir={work}")


# -------------------------------------------------------------------------------------- bad input files
def _good(folder):
  Image.fromarray(np.random.default_rng(1).integers(20, 200, (32, 32), np.uint8)).save(folder / "good.png")


@pytest.mark.parametrize("name", ["skin", "annotation", "dpa", "piad"])
def test_images_given_to_predict(runs, name, tmp_path):
  folder, out = tmp_path / "in", tmp_path / "out"
  folder.mkdir()
  for file, write in bad_files.IMAGES.items():
    write(folder / file)
  _good(folder)
  text = survived("images to predict", "--mode=predict", f"--workdir={runs[name]}", f"--input={folder}",
                  f"--output={out}")
  told = _told(out, text)
  with open(out / "predictions.csv", newline="") as f:
    rows = {pathlib.Path(r["input"]).name: r for r in csv.DictReader(f)}
  assert any("good" in k and not r["error"] for k, r in rows.items()), text[-1000:]
  for file in bad_files.IMAGES:
    assert file in told or pathlib.Path(file).stem in rows, f"{file} vanished"
    COUNTS["image to predict"] += 1


def _told(out, text):
  """All that predict says of its inputs."""
  return text + "".join(p.read_text(errors="replace") for p in out.glob("*.csv"))


@pytest.mark.parametrize("ending", [".nii.gz", ".NII.GZ"])
def test_volumes_given_to_predict(runs, ending, tmp_path):
  folder, out = tmp_path / "in", tmp_path / "out"
  synthetic.write_nifti(folder, 1, shape=(32, 32, 4))
  good = next(folder.rglob("*_flair.nii.gz"))
  for file, write in bad_files.VOLUMES.items():
    scan = folder / file
    scan.mkdir()
    for m in ("t1", "t1ce", "t2"):
      shutil.copy(good, scan / f"{file}_{m}.nii.gz")
    write(scan / f"{file}_flair{ending}")
  text = survived("volumes to predict", "--mode=predict", f"--workdir={runs['dae']}", f"--input={folder}",
                  f"--output={out}")
  told = _told(out, text)
  assert list(out.rglob("BraTS*_anomaly.nii.gz")), text[-1000:]
  for file in bad_files.VOLUMES:
    assert file in told and not list(out.rglob(f"{file}_anomaly*")), f"{file} vanished, or was accepted"
    COUNTS["volume to predict"] += 1


@pytest.mark.parametrize("kind", ["flair", "seg"])
def test_volumes_given_to_the_preparation(kind, tmp_path):
  folder = tmp_path / "in"
  synthetic.write_nifti(folder, 12 + len(bad_files.VOLUMES), shape=(24, 24, 4))
  scans = sorted(p for p in folder.iterdir() if p.is_dir())
  for scan, (_, write) in zip(scans, bad_files.VOLUMES.items()):
    path = scan / f"{scan.name}_{kind}.nii.gz"
    path.unlink()
    write(path)
  text = survived("volumes to prepare", "--config=configs/dae_brats.py:smoke", f"--workdir={tmp_path / 'w'}",
                  f"--config.data.dir={folder}", f"--config.data.prepared_dir={tmp_path / 'p'}",
                  "--config.data.workers=1")
  report = (tmp_path / "p" / "report.json").read_text()
  for scan, name in zip(scans, bad_files.VOLUMES):
    harmless = kind == "seg" and name in ("zero", "negative")
    assert harmless or scan.name in report, f"{name} {kind} was accepted: {text[-800:]}"
    COUNTS["volume to prepare"] += 1


# ---------------------------------------------------------------------------------------------- tables
TABLES = {
    "empty": b"", "header": b"patient,split,flair,t1,t1ce,t2\n", "binary": bytes(range(256)), "nul": b"patient\0,split\n",
    "latin": "patient,split,flair,t1,t1ce,t2\nP\xe4,train,a,b,c,d\n".encode("latin-1"),
    "no column": b"patient,split,flair\nP1,train,a\n", "ragged": b"patient,split,flair,t1,t1ce,t2\nP1,train\n",
    "twice": b"patient,split,flair,t1,t1ce,t2\nP1,train,a,b,c,d\nP1,val,e,f,g,h\n",
    "word": b"patient,split,flair,t1,t1ce,t2\nP1,training set,a,b,c,d\n", "quote": b'patient,split,flair,t1,t1ce,t2\n"P1,train,a,b,c,d\n',
    "workbook": b"PK\3\4" + bytes(100), "outside": b"patient,split,flair,t1,t1ce,t2\n../../x,train,/etc/passwd,b,c,d\n",
    "columns": b"patient,patient,split,flair,t1,t1ce,t2\n1,2,train,a,b,c,d\n",
    "leak": b"patient,split,flair,t1,t1ce,t2,group\nP1,train,a,b,c,d,g\nP2,test,e,f,g,h,g\n",
    "absent": b"patient,split,flair,t1,t1ce,t2\nP1,train,a,b,c,d\n"}


@pytest.mark.parametrize("name", TABLES)
def test_manifests(runs, name, tmp_path):
  (tmp_path / "manifest.csv").write_bytes(TABLES[name])
  refused("manifest to train", "--config=configs/dae_brats.py:smoke", f"--workdir={tmp_path / 'w'}",
          f"--config.data.dir={tmp_path}", f"--config.data.prepared_dir={tmp_path / 'p'}", empty=[tmp_path / "w"])
  survived("manifest to predict", "--mode=predict", f"--workdir={runs['dae']}",
           f"--input={tmp_path / 'manifest.csv'}", f"--output={tmp_path / 'o'}")
  assert not list(tmp_path.glob("o/**/*.nii.gz")) and not (tmp_path.parent / "x_anomaly.nii.gz").exists()


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("config", ["noisy_skin.py:smoke", "dpa_nih.py:small,folder=1"])
def test_labels(name, config, tmp_path):
  (tmp_path / "labels.csv").write_bytes(TABLES[name].replace(b"patient", b"file").replace(b"flair", b"label"))
  where = [f"--config.data.dir={tmp_path}", "--config.data.layout=manifest"] if "skin" in config else [
      f"--config.data.root={tmp_path}"]
  refused("table of labels", f"--config=configs/{config}", f"--workdir={tmp_path / 'w'}", *where,
          empty=[tmp_path / "w"])
