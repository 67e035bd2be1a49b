"""A single-stroke vector font such as scanners burn in, drawn for this project.

A glyph is a set of polylines separated by blanks; a point is two digits: x in 0..4, y in 0..8 with
the baseline at 2, the x-height at 6 and the top of capitals at 8.
"""

from __future__ import annotations

import numpy as np

_GLYPHS = {
    "A": "022842 1535", "B": "02083847463505 3544433202", "C": "4738180703123243",
    "D": "02082846443202", "E": "48080242 0535", "F": "480802 0535", "G": "473818070312324345 4525",
    "H": "0208 4248 0545", "I": "1838 1232 2822", "J": "4843321203", "K": "0208 4805 1642",
    "L": "080242", "M": "0208254842", "N": "02084248", "O": "180703123243473818",
    "P": "02083847463505", "Q": "180703123243473818 2442", "R": "02083847463505 2542",
    "S": "4738180706154443321203", "T": "0848 2822", "U": "080312324348", "V": "082248",
    "W": "0812253248", "X": "0248 0842", "Y": "082548 2522", "Z": "08480242",
    "a": "16364542 4434140312324344", "b": "0802 03123243453616 1605", "c": "45361605031232",
    "d": "4842 4536160503123243", "e": "044445361605031232", "f": "382822 1636",
    "g": "46413010 45361605041333", "h": "0802 0516364542", "i": "2622 2827", "j": "26211000 2827",
    "k": "0802 3604 1442", "l": "2822", "m": "0602 05162522 25364542", "n": "0602 0516364542",
    "o": "160503123243453616", "p": "0600 0516364543321203", "q": "4640 4536160503123243",
    "r": "0602 04163645", "s": "4536160534433212", "t": "28233242 1636", "u": "060312324346 4642",
    "v": "062246", "w": "0612253246", "x": "0246 0642", "y": "0622 4610", "z": "06460242",
    "0": "180703123243473818 1337", "1": "072822 1232", "2": "07183847460242", "3": "0848254443321203",
    "4": "32380444", "5": "4808053544433212", "6": "4738180703123243443515", "7": "084812",
    "8": "15060718384746351504031232434435", "9": "0312324347381807061535", ".": "2222",
    ",": "2211", ":": "2525 2323", "-": "1535", "+": "0545 2723", "/": "0248", "%": "0248 0818 3242",
    "=": "0646 0444", "(": "38272332", ")": "18272312", "#": "1218 3238 0646 0444", "'": "2826",
    "*": "2723 0644 4604", "<": "470543", ">": "074503", "_": "0141", " ": "",
}


_NARROW = " .,:'ijl"


def text_polylines(text: str, size: float, slant: float = 0.0) -> tuple[list[np.ndarray], float]:
  """The strokes of a line of text.

  Args:
    text: characters without a glyph are drawn as small boxes.
    size: height of capitals in pixels.
    slant: horizontal shift per unit of height, 0.2 = italic.

  Returns:
    (polylines float [n,2] of (x, y) with y down and the baseline at 0, width of the text).
  """
  unit, x0, lines = size / 6.0, 0.0, []
  for char in text:
    for stroke in _GLYPHS.get(char, "0206464202").split():
      digits = np.array([int(c) for c in stroke[:len(stroke) // 2 * 2]], float).reshape(-1, 2)
      rise = digits[:, 1] - 2
      shift = -1.0 if char in _NARROW else 0.0
      lines.append(np.stack([x0 + unit * (digits[:, 0] + shift + slant * rise), -unit * rise], 1))
    x0 += unit * (3.0 if char in _NARROW else 5.5)
  return lines, max(x0 - 1.5 * unit, unit)
