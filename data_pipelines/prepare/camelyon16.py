"""Prepares Camelyon16: slides to patches in the stains of one slide, lists, and a manifest.

  python -m data_pipelines.prepare camelyon16 --source=CAMELYON16 --target=PATCHES

Nine steps, each also alone (--steps=stain): annotations, masks, normal, tumor, target, stain, lists, merge,
resize. Run it again after whatever stopped it, on as many machines as share the two folders. Train on the
result with --config.data.image_root=PATCHES/x10 --config.data.lists_root=PATCHES. docs/prepare_slides.md.
"""

from __future__ import annotations

import argparse
import dataclasses

from data_pipelines import claims
from data_pipelines.errors import UserError
from data_pipelines.slides.camelyon import beam, run, settings as fields

_HELP = {
    "source": "folder with training/ and testing/", "target": "folder of the patches",
    "parity": "as published, faults included", "format": "png (lossless), jpeg (quality 75); default png, "
    "with --parity jpeg", "seed": "of the drawing of patches", "per_slide": "at most so many patches a slide",
    "names": "folder of published lists: exactly their patches are cut",
    "border": "thumbnail pixels cleared on all sides; -1 = as published",
    "mask": "area, nearest, bicubic; default area, with --parity nearest",
    "least_lesion": "share of lesion from which a field of a tumour slide is cut",
    "left_out": "slides that are not used", "target_slide": "slide of the stain target",
    "target_left": "left edge of its region, level-0 pixels", "target_top": "upper edge",
    "target_side": "side",
    "pyramid": "x20 and x10 from the slide's own levels where it has them", "scales": "x40 and more"}


def main(argv: list[str]) -> None:
  """Prepares, then says what there is."""
  parser = argparse.ArgumentParser(prog="prepare camelyon16", description=__doc__.splitlines()[0],
                                   epilog="Options that are not listed go to Beam, with --runner.")
  for field in dataclasses.fields(fields.Settings):
    if field.name == "stain":
      continue
    required = field.default is dataclasses.MISSING
    if field.default is False:
      parser.add_argument(f"--{field.name}", action="store_true", help=_HELP[field.name])
    elif isinstance(field.default, tuple):
      parser.add_argument(f"--{field.name}", type=_names, default=field.default,
                          help=f"{_HELP[field.name]}; default {','.join(field.default)}")
    else:
      shown = f"; default {field.default}" if field.default and not required else ""
      parser.add_argument(f"--{field.name}", type=str if required else type(field.default), required=required,
                          default=None if required else field.default,
                          help=_HELP[field.name] + shown)
  parser.add_argument("--no_stain", action="store_true", help="patches keep their stains")
  parser.add_argument("--steps", type=_names, default=fields.STEPS, help="default: all")
  parser.add_argument("--workers", type=int, default=0, help="processes; 0 = as many as pay")
  parser.add_argument("--strict", action="store_true", help="a slide that is left out is an error")
  parser.add_argument("--stale", type=float, default=claims.STALE,
                      help="seconds without a sign of life after which another machine's work is taken over")
  parser.add_argument("--runner", default="", help="of Apache Beam: DirectRunner, DataflowRunner ...")
  args, more = parser.parse_known_args(argv)
  if more and not args.runner:
    parser.error(f"unknown: {' '.join(more)}")
  settings = fields.resolve(fields.Settings(
      stain=not args.no_stain, **{f.name: getattr(args, f.name) for f in dataclasses.fields(fields.Settings)
                                  if f.name != "stain"}))
  bad = [s for s in args.steps if s not in fields.STEPS]
  if bad or args.stale < 1:
    raise UserError(f"--steps={','.join(bad)}: the steps are {', '.join(fields.STEPS)}" if bad
                    else "--stale is at least 1 second")
  pool = beam.pool(args.target, [f"--runner={args.runner}", *more]) if args.runner else None
  report = run.prepare(settings, args.steps, args.workers, args.strict, args.stale, pool)
  for name, count in report.get("patches", {}).items():
    print(f"{name}: {count} patches")
  print(f"{args.target} ({len(report['left_out'])} slides left out"
        + (", see report.json and manifest.csv)" if "patches" in report else ")"))


def _names(text):
  """A tuple of names written with commas."""
  return tuple(part for part in text.split(",") if part)


if __name__ == "__main__":
  from data_pipelines.prepare import program
  program(main)
