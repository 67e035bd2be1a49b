"""Pairs of an annotated frame and the same frame without annotations, from two folders.

<dir>/annotated and <dir>/clean hold files of equal names (PNG, JPEG, TIFF, BMP, DICOM; 8 and 16
bit; grey and colour); <dir>/mask, where it exists, masks of the drawn pixels (any value above 0). A
mask belongs to the frame whose path below its folder it shares. Endings may differ, where one file alone
comes into question: a.png and a.jpg are a pair. A frame is called as its clean file.
Without masks, |annotated - clean| > mask_threshold at native size marks a pixel: JPEG noise does not count.
Who a frame is of, which decides the split: intake/patients.py, or a table.
Example: {"image" annotated [H,W,C], "clean" [H,W,C], "mask" [H,W,1]}, float32 in [0,1].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
import filecmp
import logging
import pathlib

import ml_collections
import numpy as np

from data_pipelines import scored_alone
from data_pipelines.dataset import DataSet
from data_pipelines.errors import UserError
from data_pipelines.formats import doubts, images
from data_pipelines.intake import counts, find, mask_words
from data_pipelines.intake.find import without_ending as stem
from data_pipelines.intake.tables import same
from data_pipelines.masks import images as mask_images
from data_pipelines.ops import resize
from data_pipelines.pairs import frames
from data_pipelines.pairs.splits import groups_of, split_names

_SHOWN = 5  # masks without a frame in the log; all of them are in `describe`
_CLEAR, _FEW = 64, 20  # grey levels of 255, pixels: a difference that is surely drawn
_NO_PAIR = 0.3  # share of the pixels from which a difference is hardly an annotation


def defaults() -> ml_collections.ConfigDict:
  """Fields of config.data."""
  fields = frames.defaults("paired")
  fields.annotated_dir = "annotated"  # sub-folder of annotated frames
  fields.mask_dir = "mask"         # sub-folder of drawn masks; need not exist
  fields.mask_threshold = 8        # grey levels of 255 from which a difference is a mark
  fields.mask_dilate = 0           # pixels by which such a mask grows
  return fields


def resolve(data_cfg) -> ml_collections.ConfigDict:
  """All fields, checked; raises UserError."""
  return frames.resolve(data_cfg, defaults())


def spec(data_cfg):
  """See fields.Spec."""
  return frames.spec_of(resolve(data_cfg))


def read_example(path, data_cfg) -> np.ndarray:
  """A frame as scoring sees it: float32 [H,W,C] in [0,1]."""
  return frames.read_resized(path, resolve(data_cfg))


class FilePair(frames.Item):
  """An annotated (`path`) and a clean file, and perhaps a mask."""

  def __init__(self, name, path, group, cfg, clean: pathlib.Path, mask: pathlib.Path | None = None):
    super().__init__(name, path, group, cfg)
    self.clean, self.mask = clean, mask
    self.unmarked = 0.0  # share of what clearly differs that the mask leaves out
    self.differs = 0.0  # share of the pixels, where nothing but the difference says what was drawn

  def load(self):
    annotated, clean = (images.read_unit(f, self.cfg.channels, self.cfg.window)
                        for f in (self.path, self.clean))
    if annotated.shape != clean.shape:
      raise UserError(f"{self.name}: annotated is {annotated.shape[0]}x{annotated.shape[1]}, clean "
                       f"{clean.shape[0]}x{clean.shape[1]}")
    if self.mask is not None:
      mask = mask_images.read_marks(self.mask).astype(np.float32)
      if mask.shape[:2] != clean.shape[:2]:
        raise UserError(f"{self.name}: mask is {mask.shape[0]}x{mask.shape[1]}, clean "
                         f"{clean.shape[0]}x{clean.shape[1]}")
      self._check_mask(mask, annotated, clean)
    else:
      mask = difference_mask(annotated, clean, self.cfg.mask_threshold, self.cfg.mask_dilate)
      self.differs = float(mask.mean())
    size = tuple(self.cfg.resize) if any(self.cfg.resize) else clean.shape[:2]
    self.size = tuple(size)
    return (resize.unit_image(annotated, size), resize.unit_image(clean, size),
            resize.any_mark(mask, size))

  def _check_mask(self, mask, annotated, clean):
    """Refuses a mask that is white where nothing was drawn, and black where something was."""
    if mask.all():
      raise UserError(f"{self.mask} marks every pixel of {self.name}: any value above 0 is a mark")
    drawn = difference_mask(annotated, clean, self.cfg.mask_threshold) > 0
    if drawn.any() and mask.mean() > 0.5 and mask[drawn].mean() < 0.1:
      raise UserError(f"{self.mask} marks {mask.mean():.0%} of {self.name} and {mask[drawn].mean():.0%} of "
                      "what differs from the clean frame: it is inverted")
    clear = difference_mask(annotated, clean, _CLEAR) > 0  # what compression leaves is fainter
    if clear.sum() >= _FEW and clear.mean() < _NO_PAIR:
      self.unmarked = 1 - float(mask[clear].mean())


def difference_mask(annotated, clean, threshold: float, dilate: int = 0) -> np.ndarray:
  """1 where any channel differs by more than `threshold` grey levels of 255: float32 [H,W,1]."""
  mask = np.abs(annotated - clean).max(-1) > threshold / 255
  if dilate:
    from scipy import ndimage
    mask = ndimage.binary_dilation(mask, iterations=int(dilate))
  return mask.astype(np.float32)[..., None]


def partners(annotated: Collection[str], clean: Collection[str]) -> tuple[dict[str, str], list[str]]:
  """({clean frame: its annotated one}, sorted; lines about files without partner).

  Of equal names; of names that differ in their ending, where no third file of either side shares the rest.
  """
  found = {n: n for n in set(annotated) & set(clean)}
  stems = {"annotated": Counter(map(stem, annotated)), "clean": Counter(map(stem, clean))}
  of_stem = {stem(n): n for n in annotated}
  alone = [n for n in clean if all(c[stem(n)] == 1 for c in stems.values())]
  found |= {n: of_stem[stem(n)] for n in alone}
  problems = []
  for side, names, taken in (("annotated", annotated, set(found.values())), ("clean", clean, set(found))):
    other = stems["clean" if side == "annotated" else "annotated"]
    for name in sorted(set(names) - taken):
      why = ": several files differ from it in their ending alone" if other[stem(name)] else ""
      problems.append(f"{side}/{name} has no partner{why}")
  return dict(sorted(found.items())), problems


def masks_of(names: Sequence[str], folder: pathlib.Path) -> tuple[dict[str, pathlib.Path], list[str]]:
  """({frame: its mask}, lines about masks that fit no frame or that cannot be told apart).

  A mask has the frame's path below its folder, perhaps with _mask or the like behind it, and its ending where
  several frames share the rest.

  Raises:
    UserError: two masks for one frame, or one that cannot be read.
  """
  by_name, by_stem = set(names), Counter(stem(n) for n in names)
  frame_of = {stem(n): n for n in names}
  found: dict[str, pathlib.Path] = {}
  foreign = []
  search = find.find(folder, ("image", "dicom")) if folder.is_dir() else find.Found(folder)
  counts.refuse_broken(search)  # a mask that cannot be read must not count as no mask
  counts.say_unread(search, masks=True)
  for path in search.files:
    name = path.relative_to(folder).as_posix()
    own = mask_words.image_of(stem(name), by_stem)  # clean/a.png, mask/a_mask.png
    frame = name if name in by_name else frame_of[own] if by_stem[own] == 1 else ""
    if not frame:
      several = "fits several frames" if by_stem[own] else "fits no frame"
      foreign.append(f"mask {path} {several} and is not used; give it the path and name of its frame")
    elif frame in found:
      raise UserError(f"{frame} has two masks, {found[frame]} and {path}: take one away")
    else:
      found[frame] = path
  return found, foreign


def _say_other_masks(root, read):
  """Warns of a folder named as one of masks that is not the one that is read."""
  other = [p for p in find.like(root, "*") if p.is_dir() and p not in read and
           same(p.name) in mask_words.FOLDERS]
  if other:
    logging.warning("%s is named as a folder of masks, and is not read: where they are those of the frames, "
                    "set config.data.mask_dir=%s", other[0], other[0].name)


def build(data_cfg, seed: int) -> DataSet:
  """The pairs of config.data.dir.

  Raises:
    FileNotFoundError: a folder is missing. UserError: unpaired names, differing sizes, unreadable
    files (listed), or fields that do not fit; each one line.
  """
  cfg = resolve(data_cfg)
  if not cfg.dir:
    raise UserError("config.data.dir is empty: give the folder that holds clean/ and annotated/")
  root = pathlib.Path(cfg.dir)
  folders = {k: counts.subfolder(root, cfg[f"{k}_dir"]) for k in ("annotated", "clean", "mask")}
  names = {k: {p.relative_to(folders[k]).as_posix() for p in frames.list_frames(folders[k], cfg.strict)}
           for k in ("annotated", "clean")}
  annotated, problems = partners(names["annotated"], names["clean"])
  both = list(annotated)
  pairs = {n: (folders["annotated"] / annotated[n], folders["clean"] / n) for n in both}
  if both and all(filecmp.cmp(*p, shallow=False) for p in pairs.values()):
    raise UserError(f"all {len(both)} files of {folders['annotated']} are those of {folders['clean']}, byte "
                    "for byte: nothing is annotated, and there is nothing to learn")
  if cfg.mask_dir != defaults().mask_dir and not folders["mask"].is_dir() and not scored_alone.now():
    raise FileNotFoundError(f"config.data.mask_dir={cfg.mask_dir!r}: there is no folder {folders['mask']}; "
                            "leave the field out to take what differs for the marks")
  masks, foreign = masks_of(both, folders["mask"])
  _say_other_masks(root, folders.values())
  items = [FilePair(n, pairs[n][0], g, cfg, pairs[n][1], masks.get(n))
           for n, g in zip(both, groups_of(both, folders["clean"], cfg))]
  usable, problems = frames.load_all(items, problems, cfg.strict)
  if odd := [pair for pair in usable if pair.differs > _NO_PAIR]:
    logging.warning("%d of %d pairs differ in more than %.0f %% of their pixels, the first %s (%.0f %%), and "
                    "all that differs counts as drawn: are they of one frame, in place and equally bright?",
                    len(odd), len(usable), 100 * _NO_PAIR, odd[0].name, 100 * odd[0].differs)
  if odd := [pair for pair in usable if pair.unmarked > 0.5]:
    logging.warning("%d of %d masks leave out more than half of what clearly differs from the clean frame, "
                    "the first %s (%.0f %%): are they of these frames, and not mirrored? They are followed",
                    len(odd), len(usable), odd[0].mask, 100 * odd[0].unmarked)
  doubts.say_of_masks([(pair.path, pair.mask) for pair in usable if pair.mask is not None])
  doubts.say_turned([(pair.path, pair.clean) for pair in usable], "clean frames")
  doubts.say_turned([(pair.clean, pair.path) for pair in usable], "annotated frames")
  for text in foreign[:_SHOWN]:
    logging.warning("%s", text)
  if len(foreign) > _SHOWN:
    logging.warning("... and %d more masks", len(foreign) - _SHOWN)
  problems += foreign
  return frames.PairDataSet(root.name, cfg, usable, split_names(usable, root, cfg), problems, seed)
