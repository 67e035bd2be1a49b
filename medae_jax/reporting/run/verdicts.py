"""What a page says first: the model against the simplest thing that one could do instead."""

from __future__ import annotations

import dataclasses
from typing import Any

from medae_jax.metrics import dictionary
from medae_jax.reporting.plots import number
from medae_jax.reporting.run.results import Split

_FEW = 10  # patients below which an interval is said to be of little worth
_RANK = {"worse": 0, "no difference shown": 1, "better": 2, "": 3}


@dataclasses.dataclass(frozen=True)
class Verdict:
  """`said`: "better", "worse", "no difference shown" or ""; `text`: the whole sentence, no HTML."""

  said: str
  head: str
  text: str

  @property
  def style(self) -> str:
    return {"better": "better", "worse": "worse", "no difference shown": "even"}.get(self.said, "")


def of_splits(splits: list[Split]) -> list[Verdict]:
  """Verdicts of all splits, what is worse first."""
  found = [v for split in splits for v in of_split(split)]
  return sorted(found, key=lambda v: _RANK[v.said])


def of_split(split: Split) -> list[Verdict]:
  """Sentences on one split."""
  if split.kind == "restoration":
    pairs = [(key, split.result.get("baseline") or {}, key) for key in ("psnr", "mae_inside")]
    name = "the frame as it is, untouched,"
  elif split.kind == "segmentation":
    return _segmentation(split)
  else:
    by = (split.result.get("model_better_by") or {}).get("metric")
    base = split.result.get("baseline") or {}
    pairs = [(by, base, key) for key in [_better_baseline(base, by)] if key] if isinstance(by, str) else []
    name = "a plain intensity threshold, without any network,"
  found = [_verdict(split, key, base[of], name, dictionary.BASELINES.get(of.removeprefix(key), ""))
           for key, base, of in pairs
           if _is(split.result.get(key)) and _is(base.get(of))]
  return found or _without(split)


def _better_baseline(base: dict[str, Any], key) -> str:
  own = {key + ending: v for ending, v in dictionary.of_baseline(base, key).items() if _is(v)}
  return max(own, key=own.__getitem__) if own else ""


def _verdict(split: Split, key: str, base: float, name: str, form: str = "") -> Verdict:
  line, own = dictionary.metric(key), split.result[key]
  intervals = split.result.get("ci95") or {}
  interval = intervals.get(f"{key}_minus_baseline")
  said = dictionary.said(own - base, interval, line.better)
  unit = f" {line.unit}" if line.unit == dictionary.DB else ""
  words = {"better": "better than", "worse": "WORSE than"}.get(said)
  head = f"{words} {name.rstrip(',')}" if words else f"no difference shown from {name.rstrip(',')}"
  text = (f"{line.name} {_value(own, intervals.get(key))}{unit}; {name} reaches {_plain(base)}{unit}"
          f"{form and f' {form}'}. Difference {_signed(own - base)}")
  if interval and None not in interval:
    text += f", 95 % interval {_signed(interval[0])} to {_signed(interval[1])}"
    if said == "no difference shown":
      text += ", which contains zero"
  else:
    text += ", without an interval"
  text += _images_as_well(split, key)
  title = split.title.capitalize()
  return Verdict(said, f"{title}: the model is {head}" if words else f"{title}: {head}",
                 f"{text}. {_over(split)}")


def _images_as_well(split: Split, key: str) -> str:
  """Where pixels decide the verdict, what the scores of images say: the one may be better, the other not."""
  own, base = split.result.get("image_auroc"), split.result.get("baseline") or {}
  best = _better_baseline(base, "image_auroc")
  if key != "pixel_ap" or not best or not _is(own):
    return ""
  said = dictionary.said(own - base[best], (split.result.get("ci95") or {}).get("image_auroc_minus_baseline"),
                         "higher")
  words = {"better": "better", "worse": "WORSE"}.get(said, "no difference shown")
  return f". By image AUROC: {words} ({_plain(own)}, the threshold {_plain(base[best])})"


def _over(split: Split) -> str:
  n, images = split.groups, split.result.get("n_images")
  told = f"{n} {split.unit}, {images} images" if n and n != images else f"{images} {split.unit}"
  few = f" With so few {split.unit} an interval says little." if n and n < _FEW else ""
  return f"Over {told}.{few}"


def _segmentation(split: Split) -> list[Verdict]:
  result, intervals = split.result, split.result.get("ci95") or {}
  if not _is(result.get("dice")):
    return _without(split)
  shown = f"mean Dice {_value(result['dice'], intervals.get('dice'))}"
  shown += f" against {result['against']}" if result.get("against") else ""
  return [Verdict("", f"{split.title.capitalize()}: {shown}",
                  f"There is no simpler method to compare with. {_over(split)}")]


def _without(split: Split) -> list[Verdict]:
  """A split on which nothing can be compared, or that no baseline has."""
  intervals = split.result.get("ci95") or {}
  for key in ("image_auroc", "pixel_ap", "psnr"):
    if _is(split.result.get(key)):
      shown = f"{dictionary.metric(key).name} {_value(split.result[key], intervals.get(key))}"
      return [Verdict("", f"{split.title.capitalize()}: {shown}", _over(split))]
  return []


def _is(value) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def _plain(value) -> str:
  return number(float(value), "–")


def _signed(value) -> str:
  return ("+" if value > 0 else "-" if value < 0 else "") + _plain(abs(value))


def _value(value, interval) -> str:
  known = f" [{_plain(interval[0])}, {_plain(interval[1])}]" if interval and None not in interval else ""
  return _plain(value) + known
