"""A run whose detector is known in closed form, from its evaluation to what it predicts and exports."""

from data_pipelines.intake import find
from medae_jax import evaluate, export, predict
from tests.approved import shown
from tests.approved.said import said
from tests.unit import fake_run
from tests.unit.modes import test_predict as scans
from tests.unit.training import recorder

# Of the machine and the moment.
_OWN = [(r'"(command|commit|date|device|checksum|sha256|config)": "[^"]*"', r'"\1": "..."'),
        (r'"seconds": [\d.e+-]+', '"seconds": 0'), (r'"versions": \{[^}]*\}', '"versions": {}'),
        (r'("[\w./]+"): "[0-9a-f]{64}"', r'\1: "..."'), ("written with JAX [^)]*", "written with JAX ...")]
_SKIPPED = ("checkpoints", "events", "report.html", "^config.json", "lock")  # the page has texts of its own


def _lines(lines, folder):
  return "==== said\n" + "\n".join(lines).replace(str(folder), "FOLDER")


def evaluation(folder):
  """All numbers, tables, curves and pictures of two splits."""
  run = fake_run.make(folder / "run")
  with said() as lines:
    evaluate.evaluate(run)
  return shown.folder(run, _OWN, skip=_SKIPPED, sizes=("panel.png",), brief=("png",)) + _lines(lines, folder)


def unlabelled(folder):
  """A split without masks, labels and lesions: what is measured then, and why the rest is not."""
  run = fake_run.make(folder / "run", lesions=False, masks=False, labels=False)
  with said() as lines:
    evaluate.evaluate(run)
  return shown.folder(run, _OWN, skip=(*_SKIPPED, "png")) + _lines(lines, folder)


def prediction(folder):
  """Files, table and lines of predicting two scans, of which one is short of a sequence."""
  run = fake_run.make(folder / "run")
  evaluate.evaluate(run)
  scans.save(folder / "in", scans.brain(), scans.rotated())
  scans.save(folder / "in", scans.brain(1)[:1], name="p2", names=("flair",))
  with said() as lines:
    try:
      predict.predict(run, {"predict.input": str(folder / "in"), "predict.output": str(folder / "out")})
    except find.UserError as error:
      lines.append(f"raised {error}")
  return shown.folder(folder / "out", [(str(folder), "FOLDER"), *_OWN], skip=(".html",),
                      sizes=("overlay.png", "compare")) + _lines(lines, folder)


def exported(folder):
  """The manifest, what else is in the folder, and its README."""
  run = fake_run.write(folder / "run", fake_run.config(),
                       noted={"image": [[4, *fake_run.SHAPE, 2], "float32"]})
  with said() as lines:
    export.export(run, folder / "out", ("weights",), {"predict.threshold": 0.25})
  return shown.folder(folder / "out", _OWN, skip=("config.json",)) + _lines(lines, folder)


def training(folder):
  """The log of numbers, the config that is written down, and what is said of nine steps."""
  with said() as lines:
    recorder.run(folder / "run", method__losses=(9.0, 9.0, 9.0, 5.0, 9.0, 9.0, 3.0, 9.0, 9.0, 3.0))
  kept = [line for line in lines if not any(w in line for w in ("images/s", "Memory of a step", "steps of"))]
  return shown.folder(folder / "run", [(r', "train/images_per_second": [\d.e+]+', ""), *_OWN],
                      skip=_SKIPPED) + _lines(kept, folder)


CASES = {"run_evaluation": evaluation, "run_unlabelled": unlabelled, "run_prediction": prediction,
         "run_exported": exported, "run_training": training}
