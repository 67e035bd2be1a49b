"""Radiographs of NIH ChestX-ray14 at their stored size: those of one tar.gz part, or of a list of files.

Runs in data_pipelines/workers.py. A part is read as a stream: nothing of it is unpacked but the image that
is being reduced.
"""

from __future__ import annotations

from collections.abc import Iterator
import pathlib
import tarfile
from typing import Any
import zlib

from data_pipelines import claims, store as stores, workers
from data_pipelines.errors import UserError
from data_pipelines.formats import images, writing
from data_pipelines.one_class import folds
from data_pipelines.ops import resize

STEP = "resize"
_LARGEST = 1 << 28  # bytes of one image


def run(job: dict) -> dict[str, Any]:
  """Stores the images of one part.

  Args:
    job: {"name": of the part, "tar": path or "", "files": paths, "table": Data_Entry_2017.csv, "folder":
      of the images below the target, "side": pixels, "target", "stale": see slides/camelyon/slide_job.py}.

  Returns:
    {"done": images}, {"bad": reason}, {"held": who} or {"fatal": reason}.
  """
  store = stores.Store(job["target"])
  try:
    with claims.claimed(store.folder / stores.LOCKS, job["name"], job["stale"]) as holder:
      return {"held": holder} if holder else _claimed(job, store)
  except stores.CannotWrite as error:
    return {"fatal": error.strerror or str(error)}
  except (UserError, FileNotFoundError) as error:
    return {"bad": " ".join(str(error).split())}
  except OSError as error:
    return {"fatal": f"cannot write to {job['target']}: {error.strerror or error}"}
  finally:
    store.close()


def _claimed(job, store):
  key = stores.key(STEP, [pathlib.Path(p) for p in ([job["tar"]] if job["tar"] else job["files"])], ())
  found = store.record(job["name"], STEP, key)
  if found is None:
    wanted = {row["name"] for row in folds.read_data_entry(job["table"])}
    files, bad = [], {}
    with store.scratch_file() as scratch:
      for name, path in _images(job, scratch):
        if name not in wanted:
          continue
        try:
          files.append(store.write(f"{job['folder']}/{name}", reduced(path, job["side"])))
        except UserError as error:
          bad[name] = str(error).replace(str(path), f"{job['tar']}:{name}" if job["tar"] else str(path))
    found = {"key": key, "files": files, "bad": bad}
    store.write_record(job["name"], STEP, found)
  return {"done": len(found["files"]), "left_out": found["bad"]}


def reduced(path, side: int) -> bytes:
  """A radiograph as 8-bit grey PNG of side x side pixels (Pillow's bilinear filter).

  Raises:
    UserError: it cannot be read.
  """
  return writing.encoded(resize.antialiased(images.read_8bit(path, 1), side)[..., 0], ".png")


def _images(job, scratch) -> Iterator[tuple[str, pathlib.Path]]:
  """(file name, path to read it from) of all images of a part."""
  if not job["tar"]:
    for file in job["files"]:
      yield pathlib.Path(file).name, pathlib.Path(file)
    return
  count = 0
  try:
    with tarfile.open(job["tar"], "r|*") as archive:
      for member in archive:
        if not member.isreg() or not member.name.lower().endswith(".png"):
          continue
        if member.size > _LARGEST:
          raise UserError(f"{job['tar']}: {member.name} has {member.size:,} bytes: that is no radiograph")
        scratch.write_bytes(archive.extractfile(member).read())
        count += 1
        yield pathlib.PurePosixPath(member.name).name, scratch
  except (tarfile.TarError, EOFError, zlib.error) as error:
    raise UserError(f"{job['tar']} is damaged or was not downloaded to its end: it breaks off after {count} "
                    f"images ({error}); download it again") from None


if __name__ == "__main__":
  workers.serve(run)
