"""Prepares NIH ChestX-ray14: radiographs of 300 x 300, the lists of AP, PA and the subset, a manifest.

  python -m data_pipelines.prepare nih --source=DOWNLOAD --target=NIH --subset=FOLDS

DOWNLOAD holds Data_Entry_2017.csv, train_val_list.txt, test_list.txt and images_*.tar.gz as they come (they
are read as streams), or the unpacked images. Run it again after whatever stopped it, on as many machines as
share the folders. Train with --config.data.image_root=NIH/nih_300 --config.data.lists_root=NIH.
"""

from __future__ import annotations

import argparse

from data_pipelines import claims
from data_pipelines.errors import UserError
from data_pipelines.one_class import radiographs


def main(argv: list[str]) -> None:
  """Prepares, then says what there is."""
  parser = argparse.ArgumentParser(prog="prepare nih", description=__doc__.splitlines()[0])
  parser.add_argument("--source", required=True, help="folder of the download")
  parser.add_argument("--target", required=True)
  parser.add_argument("--subset", default="", help="folder with train_test_split/nih/subset")
  parser.add_argument("--side", type=int, default=radiographs.SIDE, help="of the images; published: 300")
  parser.add_argument("--workers", type=int, default=0, help="processes; 0 = as many as pay")
  parser.add_argument("--strict", action="store_true", help="an image that is left out is an error")
  parser.add_argument("--stale", type=float, default=claims.STALE,
                      help="seconds without a sign of life after which another machine's work is taken over")
  args = parser.parse_args(argv)
  if not 16 <= args.side <= 4096 or args.stale < 1:
    raise UserError("--side is 16 to 4096 pixels, --stale at least 1 second")
  report = radiographs.prepare(args.source, args.target, args.subset, args.workers, args.strict, args.stale,
                               args.side)
  for name, count in report["lists"].items():
    print(f"{name}: {count} images, {report['listed_without_image'].get(name, 0)} of them not there")
  print(f"{args.target}/{report['folder']}: {report['images']} images ({len(report['left_out'])} left out, "
        "see report.json and manifest.csv)")


if __name__ == "__main__":
  from data_pipelines.prepare import program
  program(main)
