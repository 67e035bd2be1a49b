"""A tiny Camelyon16: slides of three cells a side, with annotations, in the challenge's folders."""

import numpy as np

from data_pipelines.slides import cells
from tests import slide_files

CELLS = 3
TARGET = ("--target_slide=normal_001", "--target_left=768", "--target_top=768", "--target_side=256")
_FIELD = """<Annotation Name="{name}" Type="Polygon" PartOfGroup="{group}"><Coordinates>{points}
</Coordinates></Annotation>"""


def write(folder, normal=1, tumor=1, test=True):
  """Writes slides and returns the folder.

  Args:
    normal, tumor: training slides. test: also test_001 (normal) and test_002 (tumour).
  """
  names = [("training/normal", f"normal_{i + 1:03d}") for i in range(normal)]
  names += [("training/tumor", f"tumor_{i + 1:03d}") for i in range(tumor)]
  names += [("testing/images", f"test_{i:03d}") for i in (1, 2)] if test else []
  for number, (place, name) in enumerate(names):
    (folder / place).mkdir(parents=True, exist_ok=True)
    slide_files.write_slide(folder / place / f"{name}.tif", stained(number), downsamples=(1, 4, 16))
    if name.startswith("tumor") or name == "test_002":
      xml = folder / place.split("/")[0] / "lesion_annotations" / f"{name}.xml"
      xml.parent.mkdir(exist_ok=True)
      xml.write_text(annotation())
  if test:
    (folder / "testing" / "reference.csv").write_text("test_001,Normal,None,None\ntest_002,Tumor,IDC,Macro\n")
  return folder


def stained(seed, cells_a_side=CELLS):
  """uint8 [S,S,3]: two stains in squares of 64 pixels; the first row of cells is blank."""
  rng = np.random.default_rng(seed)
  side, tile = cells_a_side * cells.SIDE, 64
  amounts = rng.uniform(0.05, 1.2, (side // tile, side // tile, 2)).repeat(tile, 0).repeat(tile, 1)
  density = amounts @ np.array([[.55, .78, .30], [.15, .95, .27]])
  image = np.clip(255 * np.exp(-density) + rng.integers(-4, 5, (side, side, 1)), 0, 255)
  image[:cells.SIDE] = 250
  return image.astype(np.uint8)


def annotation(tumor=((760, 760), (2304, 760), (2304, 2304), (760, 2304)),
               hole=((1536, 1536), (2304, 1536), (2304, 2304), (1536, 2304))):
  """XML of ASAP: one lesion over the cells at right, and a hole in it."""
  fields = [_FIELD.format(name=f"Annotation {i}", group=group, points="".join(
      f'<Coordinate Order="{n}" X="{x}.4" Y="{y}.4" />' for n, (x, y) in enumerate(points)))
            for i, (group, points) in enumerate((("_0", tumor), ("_2", hole))) if points]
  return f"<ASAP_Annotations><Annotations>{''.join(fields)}</Annotations></ASAP_Annotations>"
