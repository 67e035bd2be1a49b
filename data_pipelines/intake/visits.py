"""Names of one person's scans at several times: OAS1_0061_MR1 and _MR2, UPENN-GBM-00001_11 and _21."""

from __future__ import annotations

import re

# What stands before a scan's time by a word that says so: BraTS-GLI-00005-101, sub-01_ses-02, P3_visit2.
_SAID = re.compile(r"(BraTS-[A-Z]+-\d+(?=-\d{3}$)|.+?(?=[-_](ses|session|visit|tp|timepoint|time|fu|"
                   r"follow-?up|baseline)([-_]\w+|\d+[dwmy]?)?$))", re.IGNORECASE)
_DAY = re.compile(r"(?:(.+?)[-_. ])?(?:19|20)\d\d([-_.]?)(?:0[1-9]|1[0-2])\2(?:[0-2]\d|3[01])")
# Months, weeks, years, days since the first, the field of the scanner, which of several it was; of a name
# with a number, so that "smith_m" stays itself.
_SINCE = re.compile(
    r"(.*\d.*?)[-_](mr[-_]?d?\d{1,5}|"
    r"(m|month|w|wk|week|y|yr|year|d|day|exam|mri|session)[-_]?\d{1,4}(-\d)?|"
    r"[vt]\d{1,2}|(run|acq|scan|rescan|study|rep|repeat|test|retest)[-_]?\d{0,3}|"
    r"(pre|post|intra)[-_]?(op|treatment|rt|surgery)?|bl|base|sc|scr|screening|first|second|third|"
    r"1st|2nd|3rd|initial|control|final|(1\.5|3|7)t|(19|20)\d\d|"
    r"[0-9]+(mo?|months?|w|weeks?|y|yrs?|years?|d|days?))",
    re.IGNORECASE)
_WRITTEN = re.compile(r"(.*\d\D*?)[-_. ]((?:19|20)\d\d)([-_.])(0[1-9]|1[0-2])\3([0-2]\d|3[01])(?!\d)")
_UK_BIOBANK = re.compile(r"(\d{7})_\d{5}_\d_\d")  # person, field, instance, array
# A short number behind the person's own, which is long: 01-02 and S101-01 are the second subject of a site.
_NUMBER = re.compile(r"(.*?([^\W\d_]*)[-_ ]?(?:\d{4,}(?=[-_])|\d{3}(?=_)|(?<=[^\W\d_]{4})\d\d(?=_)))"
                     r"[-_]\d{1,2}")
# Numbered, and no people.
_PLACES = {"site", "center", "centre", "hospital", "cohort", "batch", "fold", "set", "scanner", "vendor",
           "group", "brats", "part", "series", "study", "slide", "img", "im", "image", "frame", "slice"}


def person(name: str) -> str:
  """A scan's name without its time; the name itself where it tells none.

  By a word (visit2, MR2, m12), by a day, or by a short number behind a longer one (UPENN-GBM-00001_11);
  site0012_01 is no visit of a site.
  """
  for pattern in (_UK_BIOBANK.fullmatch, _SAID.match, _DAY.fullmatch, _SINCE.fullmatch):
    if found := pattern(name):
      place = re.fullmatch(r"([^\W\d_]+)[-_ ]?\d+", found[1] or "")
      nobody = not found[1] or (place and place[1].lower() in _PLACES)  # a day alone; site1_t12
      return name if nobody else found[1]
  found = _NUMBER.fullmatch(name)
  return found[1] if found and found[2].lower() not in _PLACES else name


def compact(name: str) -> str:
  """P1_20190501 of "P1 2019-05-01": a day behind a number, as one word; other names as they are."""
  return _WRITTEN.sub(r"\1_\2\4\5", name)
