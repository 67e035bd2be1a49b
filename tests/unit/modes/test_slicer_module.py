"""The core of the 3D Slicer module, without Slicer: it runs a folder by a Python of its own."""

import json
import pathlib
import sys

import pytest

from examples import slicer_anomaly as slicer

PROGRAM = """
import os, pathlib, sys
source, out = map(pathlib.Path, sys.argv[1:])
assert 'PYTHONPATH' not in os.environ
names = sorted(p.name for p in source.iterdir()) if source.is_dir() else [source.name]
out.mkdir(parents=True)
if names == ['bad_flair.nii.gz']:
  sys.exit('Traceback\\nonnxruntime is not installed')
error = '' if 'scan' in names[0] else 'sizes differ'
if not error:
  for kind in ('anomaly', 'mask'):
    (out / f'scan_{kind}.nii.gz').write_text(' '.join(names))
(out / 'predictions.csv').write_text('input,score,p_value,called_abnormal,mask_ml,error\\n'
                                     f'scan,0.25,0.0625,1,3.456,{error}\\n')
"""


def folder(where, modalities=("flair", "t1")):
  where.mkdir()
  (where / "config.json").write_text(json.dumps({"data": {"modalities": modalities}}))
  (where / "run_onnx.py").write_text(PROGRAM)
  (where / "score.onnx").write_bytes(b"")
  return where


def volumes(where, *names):
  where.mkdir()
  for name in names:
    (where / name).write_bytes(b"")
  return {n.split("_")[1].split(".")[0]: where / n for n in names}


def test_a_scan_goes_through_the_folder(tmp_path, monkeypatch):
  monkeypatch.setenv("PYTHONPATH", "of Slicer")
  exported = folder(tmp_path / "exported")
  assert slicer.modalities(exported) == ("flair", "t1")
  given = volumes(tmp_path / "in", "scan_flair.nii.gz", "scan_t1.nii.gz")
  found = slicer.run(exported, sys.executable, given, tmp_path / "out")
  assert found["map"].read_text() == "scan_flair.nii.gz scan_t1.nii.gz"
  assert found["mask"].name == "scan_mask.nii.gz" and slicer.summary(found["row"]) == (
      "score 0.25, p-value 0.0625, called abnormal, 3.46 ml above the threshold. Research use only, no "
      "diagnosis.")
  one = folder(tmp_path / "one", ("flair",))
  found = slicer.run(one, sys.executable, {"flair": given["flair"]}, tmp_path / "alone")
  assert found["map"].read_text() == "scan_flair.nii.gz"


def test_what_fails_is_one_line(tmp_path):
  exported = folder(tmp_path / "exported", ("flair",))
  run = lambda given, python=sys.executable: slicer.run(exported, python, given, tmp_path / "out")
  with pytest.raises(slicer.ExportError, match="no volume chosen for flair"):
    run({})
  with pytest.raises(slicer.ExportError, match="the folder failed: onnxruntime is not installed"):
    run(volumes(tmp_path / "bad", "bad_flair.nii.gz"))
  with pytest.raises(slicer.ExportError, match="^sizes differ$"):
    slicer.run(exported, sys.executable, volumes(tmp_path / "odd", "odd_flair.nii.gz"), tmp_path / "odd_out")
  with pytest.raises(slicer.ExportError, match="did not run the folder"):
    run({"flair": tmp_path / "bad/bad_flair.nii.gz"}, tmp_path / "no_python")
  with pytest.raises(slicer.ExportError, match="is of a model of single images"):
    slicer.modalities(folder(tmp_path / "flat", ()))
  with pytest.raises(slicer.ExportError, match=r"has no config.json: choose a folder of --mode=export"):
    slicer.modalities(tmp_path)


def test_it_needs_the_standard_library_alone():
  text = pathlib.Path(slicer.__file__).read_text(encoding="utf-8")
  assert "numpy" not in text and len(text.splitlines()) < 160
