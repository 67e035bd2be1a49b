"""Prepares a folder of brain volumes, as the data set brats does by itself when it is opened.

  python -m data_pipelines.prepare brats --dir=FOLDER --prepared_dir=PREPARED

FOLDER holds BraTS folders or manifest.csv. The options are fields of config.data
(data_pipelines/brains/fields.py); train with the same ones. What is prepared already stays.
"""

from __future__ import annotations

import argparse

from data_pipelines import fields as data_fields
from data_pipelines.brains import fields, prepare

_OPTIONS = ("prepared_dir", "modalities", "image_size", "lesion_values", "storage", "workers", "strict")


def main(argv: list[str]) -> None:
  """Prepares, then says where the set lies and what it holds."""
  parser = argparse.ArgumentParser(prog="prepare brats", description=__doc__.splitlines()[0])
  parser.add_argument("--dir", required=True, help="folder with the volumes")
  known = fields.defaults()
  for name in _OPTIONS:
    default = known[name]
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    if isinstance(default, bool):
      parser.add_argument(f"--{name}", action="store_true")
    else:
      parser.add_argument(f"--{name}", default=default, type=_parser_of(default),
                          help=f"default {shown!r}")
  cfg = fields.resolve(data_fields.changed(known, **vars(parser.parse_args(argv))))
  folder, manifest = prepare.prepare_set(cfg)
  for split, counts in manifest["counts"].items():
    print(f"{split}: {counts['patients']} patients, {counts['slices']} slices, "
          f"{counts['healthy_slices']} of them healthy")
  print(f"{folder} ({len(manifest['left_out'])} scans left out, see report.json)")


def _parser_of(default):
  """Text -> the type of the default; tuples are written with commas."""
  if isinstance(default, tuple):
    kind = type(default[0]) if default else int
    what = "whole numbers" if kind is int else "words"

    def parse(text):
      try:
        return tuple(kind(part) for part in text.split(",") if part)
      except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what} with commas between, such as "
                                         f"{','.join(map(str, default or (1, 4)))}") from None
    return parse
  return type(default)


if __name__ == "__main__":
  from data_pipelines.prepare import program
  program(main)
