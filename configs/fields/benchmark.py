"""The runs of the published benchmark, run_experiments of the DPA paper (benchmark protocol, section 6).

Default 4 models x 4 data sets x 2 experiments x classes x 3 runs = 624 launches, 516 of which have a
published config; with ablation 96 more, all of which have one. What has none: class 10 of CIFAR-10 and
SVHN, which the runner counts, and dpa/pg there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
import dataclasses

from data_pipelines.errors import UserError

MODELS = ("dpa", "piad", "deep_geo", "deep_if")
DATASETS = ("cifar10", "svhn", "camelyon16", "nih")
CLASSES: dict[str, tuple] = {"cifar10": tuple(range(10)), "svhn": tuple(range(10)),
                             "camelyon16": ("healthy",), "nih": ("AP", "PA", "subset")}
ARGUMENT = {"cifar10": "cls", "svhn": "cls", "camelyon16": "", "nih": "view"}  # of the configs
EXPERIMENTS = {"dpa": ("wo_pg", "pg"), **dict.fromkeys(("piad", "deep_geo", "deep_if"),
                                                      ("with_cv", "reproduce"))}
_WEIGHTED = ("wo_pg_with_L1", "wo_pg_with_adversarial", "wo_pg_with_adversarial_L1")
# Published name -> argument of configs/dpa_*.py.
ABLATIONS = {"wo_pg_L1_unsupervised": "exp=L1_unsupervised", "wo_pg_unsupervised": "exp=unsupervised",
             **{f"{name}/weight_{w:.3f}": f"exp={name[6:]},weight={w:g}"
                for name in _WEIGHTED for w in (1.0, 0.1)}}
_RUNNER_CLASSES: dict[str, tuple] = {  # the ten that does not exist among them
    d: (*c, 10) if d in ("cifar10", "svhn") else c for d, c in CLASSES.items()}


@dataclasses.dataclass(frozen=True)
class Launch:
  """One run of the published runner; `published`: whether it has a config file."""
  model: str
  data: str
  exp: str
  cls: str | int
  run: int

  @property
  def name(self) -> str:
    return f"{self.model}/{self.data}/{self.exp}/class_{self.cls}/run_{self.run}"

  @property
  def published(self) -> bool:
    return self.cls in CLASSES[self.data] and (self.model, self.exp, ARGUMENT[self.data]) != (
        "dpa", "pg", "cls")


def launches(models: Collection[str] = MODELS, datasets: Collection[str] = DATASETS,
             exps: Collection[str] = (), classes: Collection[str] = (), runs: Sequence[int] = (0, 1, 2),
             ablation: bool = False) -> list[Launch]:
  """The runs in the order of the published runner: model, data set, experiment, class, run.

  Args:
    exps: () = the default experiments of each model. An ablation may be named with its weight or without.
    classes: () = those of the runner, the 10 that does not exist among them.
    ablation: adds the ablations of dpa on camelyon16 and nih.

  Raises:
    UserError: a name that is none of them.
  """
  known = [e for m in models for e in (*EXPERIMENTS[m], *(ABLATIONS if m == "dpa" else ()))]
  _check("exp", exps, [*known, *_WEIGHTED])
  _check("cls", classes, [str(c) for d in datasets for c in _RUNNER_CLASSES[d]])
  found = []
  for model in models:
    for data in datasets:
      more = ABLATIONS if model == "dpa" and ARGUMENT[data] != "cls" and (ablation or exps) else ()
      for exp in (*EXPERIMENTS[model], *more):
        if not exps or exp in exps or exp.partition("/")[0] in exps:
          found += [Launch(model, data, exp, c, run) for c in _RUNNER_CLASSES[data]
                    if not classes or str(c) in classes for run in runs]
  return found


def argument(launch: Launch) -> str:
  """What configs/<model>_<data>.py is given for the experiment of a launch."""
  if launch.model == "dpa" and ARGUMENT[launch.data] == "cls":
    return ""  # the only experiment there
  return ABLATIONS.get(launch.exp, f"exp={launch.exp}")


def _check(name, given, known):
  wrong = [str(v) for v in given if v not in known]
  if wrong:
    raise UserError(f"config argument {name}={'+'.join(wrong)}: write all, or some of "
                    f"{'+'.join(dict.fromkeys(known))}")
