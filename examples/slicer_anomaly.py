"""3D Slicer: the volume on the screen through an exported folder, and the anomaly map laid over it.

Install (Slicer 5): Edit, Application Settings, Modules, add the folder of this file to "Additional module
paths", restart; the module is "Anomaly map (medae_jax)" under Segmentation. It runs `run_onnx.py` of a folder
that `--mode=export --formats=onnx` has written, with a Python of its own (one that has what requirements.txt
of the folder names), so that nothing is installed into Slicer. Choose the folder, that Python, one volume a
modality, and press Apply. The functions outside Slicer's classes need the standard library alone.

Research use only. Not a medical device: it shows scores, it makes no diagnosis.
"""

import csv
import json
import os
import pathlib
import subprocess
import tempfile


class ExportError(Exception):
  """What the user can mend, in one line."""


def modalities(folder):
  """Names of the volumes that an exported folder takes, in order.

  Raises:
    ExportError: no such folder, or it takes single images.
  """
  folder = pathlib.Path(folder)
  lacking = [n for n in ("config.json", "run_onnx.py", "score.onnx") if not (folder / n).is_file()]
  if lacking:
    raise ExportError(f"{folder} has no {lacking[0]}: choose a folder of --mode=export --formats=onnx")
  names = json.loads((folder / "config.json").read_text(encoding="utf-8"))["data"].get("modalities", ())
  if not names:
    raise ExportError(f"{folder} is of a model of single images; Slicer's volumes need one of scans")
  return tuple(names)


def run(folder, python, volumes, work, seconds=1800):
  """Runs the folder on one scan.

  Args:
    folder: of the export. python: program that runs it. volumes: {modality: NIfTI file written by Slicer}.
    work: folder for results, new.

  Returns:
    {"map": file, "mask": file or None, "row": line of predictions.csv}.

  Raises:
    ExportError: a modality is missing, the program fails or takes too long, the scan is refused.
  """
  missing = [m for m in modalities(folder) if m not in volumes]
  if missing:
    raise ExportError(f"no volume chosen for {', '.join(missing)}")
  inputs = [str(v) for v in volumes.values()]
  source = os.path.dirname(inputs[0]) if len(inputs) > 1 else inputs[0]
  # Slicer's own PYTHONHOME and libraries would break another Python.
  clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LD_", "DYLD_"))}
  try:
    done = subprocess.run([str(python), str(pathlib.Path(folder) / "run_onnx.py"), source, str(work)],
                          capture_output=True, text=True, timeout=seconds, env=clean, check=False)
  except (OSError, subprocess.TimeoutExpired) as error:
    raise ExportError(f"{python} did not run the folder: {error}") from error
  table, rows = pathlib.Path(work) / "predictions.csv", []
  if table.is_file():
    with open(table, newline="", encoding="utf-8") as file:
      rows = list(csv.DictReader(file))
  if len(rows) != 1 or rows[0].get("error"):
    last = (done.stderr.strip().splitlines() or ["no result"])[-1]
    raise ExportError(rows[0]["error"] if rows and rows[0].get("error") else f"the folder failed: {last}")
  find = lambda kind: next(iter(sorted(pathlib.Path(work).glob(f"*_{kind}.nii.gz"))), None)
  return {"map": find("anomaly"), "mask": find("mask"), "row": rows[0]}


def summary(row):
  """The result in words."""
  said = [f"score {float(row['score']):.4g}"]
  if row.get("p_value"):
    said.append(f"p-value {float(row['p_value']):.3g}")
  if row.get("called_abnormal"):
    said.append("called abnormal" if row["called_abnormal"] == "1" else "called normal")
  if row.get("mask_ml"):
    said.append(f"{float(row['mask_ml']):.2f} ml above the threshold")
  return ", ".join(said) + ". Research use only, no diagnosis."


try:  # what follows is Slicer's; elsewhere the functions above stand alone
  import qt
  import slicer
  from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleWidget
except ImportError:
  ScriptedLoadableModule = ScriptedLoadableModuleWidget = object


class slicer_anomaly(ScriptedLoadableModule):  # Slicer looks for a class named as the file
  """Entry in the list of modules."""

  def __init__(self, parent):
    super().__init__(parent)
    parent.title, parent.categories = "Anomaly map (medae_jax)", ["Segmentation"]
    parent.helpText = parent.acknowledgementText = __doc__


class slicer_anomalyWidget(ScriptedLoadableModuleWidget):
  """The panel: folder, Python, a volume a modality, Apply."""

  def setup(self):
    """Slicer calls it when the module is opened."""
    super().setup()
    self.form, self.chosen = qt.QFormLayout(), {}
    self.layout.addLayout(self.form)
    self.folder, self.python = qt.QLineEdit(), qt.QLineEdit("python3")
    self.folder.connect("editingFinished()", self.choose)
    apply = qt.QPushButton("Apply")
    apply.connect("clicked()", self.apply)
    self.said = qt.QLabel("Research use only. Not a medical device.")
    for label, widget in (("Exported folder", self.folder), ("Python", self.python), ("", apply),
                          ("", self.said)):
      self.form.addRow(label, widget)

  def choose(self):
    """A list of volumes for each modality of the folder."""
    for box in self.chosen.values():
      self.form.removeRow(box)
    self.chosen = {}
    with slicer.util.tryWithErrorDisplay("Anomaly map", waitCursor=False):
      for name in modalities(self.folder.text):
        box = slicer.qMRMLNodeComboBox()
        box.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        box.setMRMLScene(slicer.mrmlScene)
        self.form.insertRow(2, name, box)
        self.chosen[name] = box

  def apply(self):
    """Writes the volumes, runs the folder, loads map and mask over the first volume."""
    with slicer.util.tryWithErrorDisplay("Anomaly map"), tempfile.TemporaryDirectory() as work:
      files = {}
      for name, box in self.chosen.items():
        files[name] = pathlib.Path(work) / f"in/scan_{name}.nii.gz"
        files[name].parent.mkdir(exist_ok=True)
        slicer.util.saveNode(box.currentNode(), str(files[name]))
      found = run(self.folder.text, self.python.text, files, pathlib.Path(work) / "out")
      heat = slicer.util.loadVolume(str(found["map"]), {"name": "anomaly map"})
      heat.GetDisplayNode().SetAndObserveColorNodeID("vtkMRMLColorTableNodeFileHotToColdRainbow.txt")
      first = next(iter(self.chosen.values())).currentNode()
      slicer.util.setSliceViewerLayers(background=first, foreground=heat, foregroundOpacity=0.4)
      if found["mask"]:
        slicer.util.loadSegmentation(str(found["mask"]), {"name": "anomaly above the threshold"})
      self.said.text = summary(found["row"])
