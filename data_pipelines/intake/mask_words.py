"""The words that mean "mask": of folders that hold masks, and of files that lie beside an image and are none.

What the labels of brain volumes are called besides: brains/sequences.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
import pathlib
import re

from data_pipelines.errors import UserError

# Truth by its file: <name of the image>_<one of these>.
_TRUTHS = ("mask", "seg", "segmentation", "label", "labels", "gt", "groundtruth", "ground_truth",
           "lesion", "lesions")
# What truth and our own results are called.
RESULT_ENDINGS = (*_TRUTHS, "anomaly", "overlay", "prob")
# Folders of masks, in the form of tables.same.
FOLDERS = ("mask", "masks", "segmentation", "segmentations", "ground_truth", "groundtruth", "gt", "label",
           "labels", "annotation", "annotations", "labelstr", "labelsts", "seg", "segs", "ground truth",
           "ground-truth")
ANNOTATED = {"annotated", "marked", "overlay", "overlays"}  # folders of frames that somebody drew on
BESIDE = "is named as a label or a result"
# Words of folders that end so: lesionmasks, tumorlabels. Nobody knows what lies in them.
_FOLDERS_LIKE = re.compile(r".*(?:masks?|ground ?truths?|gts?|segm(?:entations?)?|labels(?:tr|ts)?)")
# Words of files that lie beside an image and are none: what it is marked with, and what others made of it
# (x_mask_1, mask_x, x_superpixels, x_attribute_globules, x_labelTrainIds, label_viz).
_MARK = re.compile(rf"(?:{'|'.join(RESULT_ENDINGS)}|masks|(?:mask|label|segment|superpixel|anno|contour|"
                   r"attribut|heatmap|instance|overlay)[a-z]*|cam|gradcam|viz|pred|prediction|roi|bbox|rater|reader|"
                   r"expert|observer|lesionmask)\d*")
_WHOLE = re.compile(r"(?:mask|label|seg|segmentation|gt|ground|truth|annotation|overlay|heatmap|viz)"
                    r"s?\d*")
_MAY_BE_TRUTH = re.compile("mask|seg|lesion|gt$|label|truth|anno", re.IGNORECASE)
BETWEEN = re.compile(r"[-_ .()]+")  # words of a file's name
_ENDING = re.compile(rf"[-_ .](?:{'|'.join(_TRUTHS)})$", re.IGNORECASE)
_NUMBERED = re.compile(rf"(.+)[-_ .]+\(?\d{{1,3}}\)?|(.+[-_ .](?:{'|'.join(_TRUTHS)}))\d{{1,3}}",
                       re.IGNORECASE)


def like_a_folder(word: str) -> bool:
  """Whether a word of a folder's name, in small letters, is one of folders of masks."""
  return bool(_FOLDERS_LIKE.fullmatch(word))


def holds_masks(folder: str) -> bool:
  """Whether a folder is of masks by its name, or by a word of it: infection masks, lesion_masks."""
  words = re.findall(r"[^\W\d_]+", folder.lower())
  return " ".join(folder.lower().split()) in FOLDERS or any(map(like_a_folder, words))


def refuse_folders(files: Collection[pathlib.Path], root: pathlib.Path, declared: Collection[str]) -> None:
  """Refuses files of a side in a folder that is named as one of masks, where others are in none: CBIS-DDSM's
  "1.000000-ROI mask images-18515" below abnormal/.

  Args:
    declared: folders that were said to be normal or abnormal.

  Raises:
    UserError: with the first.
  """
  known = {" ".join(word.lower().split()) for word in declared}
  odd = {path: name for path in files for name in path.relative_to(root).parts[:-1]
         if holds_masks(name) and " ".join(name.lower().split()) not in known}
  if odd and len(odd) < len(files):
    path, name = next(iter(odd.items()))
    raise UserError(f"{path} lies in {name}, which is named as a folder of masks, and would be an image as "
                    f"others are ({len(odd)} such files): call the folder masks, or take it away")


def is_mark(text: str, whole: bool = False) -> bool:
  """Whether the first or the last word of a file's name is one of marks; `whole`: all words."""
  every = list(filter(None, BETWEEN.split(text.lower())))
  words = [w for w in every if not w.isdigit()]
  if whole:  # 0007_mask may be an image of its own
    return words[:1] == every[:1] != [] and all(map(_WHOLE.fullmatch, words))
  return bool(words) and any(map(_MARK.fullmatch, (words[0], words[-1])))


def image_of(mask: str, images: Collection[str]) -> str:
  """The name among `images` that a mask of this name belongs to: its own, else without its endings.

  x_lesion_mask belongs to x_lesion where there is one, else to x; with neither, all endings are off.
  """
  while mask not in images and (shorter := _ENDING.sub("", mask)) != mask:
    mask = shorter
  return mask


def refuse_several(masks: Mapping[str, object], images: Collection[str]) -> None:
  """Refuses a mask that is a further one of an image by its name: x_mask_1, x_2 or x/1 of x.

  BUSI has a file for each lesion; one alone would count.

  Args:
    masks: {name: its file}; those that are called as an image are its mask.

  Raises:
    UserError: with the first.
  """
  for mask, path in masks.items():
    numbered = None if mask in images else _NUMBERED.fullmatch(mask)
    plain = [] if mask in images else [mask.rpartition("/")[0]]
    for name in ([numbered[1] or numbered[2], *plain] if numbered else plain):
      if (image := image_of(name, images)) in images:
        raise UserError(f"{path} is one of several masks of {image} by its name: join them into one file, "
                        "255 where any of them is marked, 0 elsewhere")


def may_be_truth(stem: str) -> bool:
  """Whether a file that lies beside its image can be its mask, rather than a result or a picture of one."""
  return bool(_MAY_BE_TRUTH.search(stem))
