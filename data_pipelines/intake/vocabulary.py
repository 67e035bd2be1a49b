"""The words of tables and folders: which split, which side. One vocabulary for all data sets.

Case and blanks do not matter. A word that is not listed is refused with its place and the words that
are allowed; it never counts as something else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
import pathlib
import re

from data_pipelines.errors import UserError
from data_pipelines.intake.tables import same

SPLITS = ("train", "val", "test")
SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val",
               "validation": "val", "test": "test", "testing": "test"}
# Folders that are on one side for sure; "0", "lesions" or "patients" may stand below either.
_SURE = {**dict.fromkeys(("normal", "normals", "healthy"), 0), **dict.fromkeys(
    ("abnormal", "abnormals", "anomaly", "anomalies", "anomalous", "pathological", "diseased"), 1)}
UNUSED = "unused"  # a row that is listed and belongs to no split
NORMAL_WORDS = ("normal", "healthy", "no finding", "negative", "good", "0")
# "anomaly" and what findings are called: each is an anomaly and its own kind in the tables of results.
ANOMALY_WORDS = (
    "anomaly", "abnormal", "anomalous", "pathological", "pathology", "diseased", "disease", "sick", "ill",
    "unhealthy", "positive", "defect", "lesion", "1",
    "tumor", "tumour", "cancer", "carcinoma", "malignant", "metastasis", "glioma", "meningioma",
    "pituitary", "adenoma", "adenocarcinoma", "squamous", "squamous cell carcinoma", "melanoma",
    "lymphoma", "cyst", "polyp", "haemorrhage", "hemorrhage", "bleeding", "stroke", "infarct",
    "ischemia", "ischaemia", "ms", "multiple sclerosis", "oedema", "hydrocephalus", "aneurysm",
    "fracture", "stenosis", "calcification", "pneumonia", "bacteria", "bacterial", "virus", "viral",
    "covid", "covid-19", "covid19", "tuberculosis", "lung opacity", "opacity",
    "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumothorax",
    "consolidation", "edema", "emphysema", "fibrosis", "pleural_thickening", "pleural thickening",
    "hernia", "nevus", "keratosis", "ulcer", "scar", "arthritis", "osteoporosis", "dislocation", "implant",
    "drusen", "cnv", "dme", "amd", "glaucoma", "cataract", "retinopathy", "diabetic retinopathy")
# What the two sides are called elsewhere, as `tables.same` writes it.
OTHER_LANGUAGES = {
    **dict.fromkeys((
        "gesund", "gesunde", "unauffällig", "normale", "normales", "normaux", "sain", "saine", "sains",
        "sano", "sana", "sanos", "sani", "saudável", "gezond", "zdrowy", "норма", "正常", "健康", "정상"), 0),
    **dict.fromkeys((
        "krank", "kranke", "auffällig", "pathologisch", "anormal", "anormale", "anormales", "anormaux",
        "malade", "malades", "pathologique", "enfermo", "enferma", "enfermos", "patológico", "patologico",
        "malato", "malati", "doente", "ziek", "afwijkend", "chory", "патология", "异常", "異常", "病变",
        "비정상"), 1)}
_SHORT = 3  # letters up to which a word has no plural: MS
# Every word of a side, one or many of it, and the side.
SIDE_WORDS = {form: side for side, words in enumerate((NORMAL_WORDS, ANOMALY_WORDS)) for word in words
              for form in (word, *((f"{word}s", f"{word}es", re.sub("is$", "es", word),
                                    re.sub("y$", "ies", word)) if len(word) > _SHORT else ()))}
SIDE_WORDS |= OTHER_LANGUAGES
_SHOWN = 14  # words for anomalies in a message; the findings follow
# Letters of columns that answer what `label` answers.
_ANSWERS = re.compile("(?:labels?|class(?:es)?|target|dx|diagnos[ie]s|findings?|findinglabels?|disease|"
                      "patholog(?:y|ies)|abnormal(?:ity)?|anomaly|gt|groundtruth|truth)[0-9]*")
BOOLEANS = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False, "": False}


def split_word(text: str, where: str) -> str:
  """"train", "val" or "test".

  Args:
    where: the place of the word, "FILE line 3", for the message.

  Raises:
    UserError: another word.
  """
  word = SPLIT_WORDS.get(same(text))
  if word is None:
    raise UserError(f"{where}: split {text!r} is not a word that is known; use "
                    f"{', '.join(SPLIT_WORDS)} (any capitals)")
  return word


def split_or_unused(text: str, where: str) -> str:
  """As `split_word`, but "" for the word "unused"."""
  return "" if same(text) == UNUSED else split_word(text, where)


def label_word(text: str, where: str, normal: Collection[str] = (), anomaly: Collection[str] = ()
               ) -> int:
  """0 = normal, 1 = anomaly.

  Args:
    where: the place of the word, for the message.
    normal, anomaly: further words, which go before the listed ones
      (config.data.normal_words, anomaly_words).

  Raises:
    UserError: a word of neither list.
  """
  side = side_of(text, normal, anomaly)
  if side is not None:
    return side
  healthy, ill = ", ".join((*NORMAL_WORDS, *normal)), ", ".join((*anomaly, *ANOMALY_WORDS[:_SHOWN]))
  raise UserError(f"{where}: label {text!r} is not a word that is known; use {healthy} or {ill} or a common "
                  f"finding (docs/tables.md lists all); declare others in config.data.normal_words or "
                  "config.data.anomaly_words")


def side_of(text: str, normal: Collection[str] = (), anomaly: Collection[str] = ()) -> int | None:
  """As `label_word`; None for another word."""
  word = same(text)
  for side, words in enumerate((normal, anomaly)):
    if word in {same(str(w)) for w in words}:
      return side
  return SIDE_WORDS.get(_whole(word))


def answers(column: str) -> bool:
  """Whether a column of a table is named as one that says which side an image is on: diagnosis, target."""
  return bool(_ANSWERS.fullmatch(re.sub(r"[\W_]+", "", column)))


def _whole(word: str) -> str:
  """0 of 0.0 and 1 of 1.0, as spreadsheets write numbers."""
  return re.sub(r"^([01])\.0*$", r"\1", word)


def check_one_side(paths: Iterable[pathlib.Path], root) -> None:
  """Refuses a file that lies below a normal and an abnormal folder: nobody can know which counts.

  Raises:
    UserError: with the file.
  """
  for path in paths:
    if len({_SURE[same(f)] for f in path.relative_to(root).parts[:-1] if same(f) in _SURE}) > 1:
      raise UserError(f"{path} lies below a folder of normal and one of abnormal images: move it to where it "
                      "belongs")


def yes_or_no(text: str, where: str, column: str) -> bool:
  """True for 1, yes, true; False for 0, no, false and an empty cell.

  Raises:
    UserError: another word.
  """
  word = _whole(same(text))
  if word not in BOOLEANS:
    raise UserError(f"{where}: {column} {text!r} is not a word that is known; use 1, 0, yes, no, true, false")
  return BOOLEANS[word]
