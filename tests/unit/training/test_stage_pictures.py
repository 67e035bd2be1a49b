"""The picture at the end of a stage: which validation images, in which order, under which words."""

import types

import numpy as np
import pytest

from data_pipelines import dataset as datasets
from medae_jax.core.method import Stage, State
from medae_jax.training import stage_pictures

METHOD = types.SimpleNamespace(pictures=lambda state, batch, rng: {
    "map": batch["image"][..., :1], "recon": batch["image"] / 2})


def data_set(n, synthetic, labels):
  arrays = {"image": np.linspace(0, 1, n, dtype=np.float32).repeat(24).reshape(n, 4, 6, 1)}
  if labels:
    arrays["label"] = np.arange(n, dtype=np.int32) % 2
  source = datasets.ArraySource(arrays, [{"id": f"i{i}"} if i else {} for i in range(n)])
  return types.SimpleNamespace(splits=("val",), split=lambda name: source, synthetic=synthetic)


@pytest.mark.parametrize("synthetic, labels", [(True, True), (False, False)])
def test_images_spread_evenly_are_shown_with_their_names(tmp_path, monkeypatch, synthetic, labels):
  drawn = []
  blank = np.zeros((2, 2, 3), np.uint8)
  monkeypatch.setattr(stage_pictures.panels, "grid", lambda *given: drawn.extend(given) or blank)
  state = State.create({"net": np.zeros(1, np.float32)}).replace(step=7)
  path = stage_pictures.write(tmp_path, 2, Stage("noisy", 5), METHOD, state, data_set(11, synthetic, labels))
  assert path == tmp_path / "stages/2_noisy.png" and path.is_file()
  cells, columns, captions, title, warning = drawn
  assert columns == ["image", "recon", "map"] and title == "end of stage noisy, step 7"
  names = ["0", "i2", "i4", "i6", "i8", "i10"]
  assert captions == [f"{n}, normal" for n in names] if labels else captions == names
  assert warning.startswith("SYNTHETIC DATA") if synthetic else warning == ""
  assert {cell.shape for row in cells for cell in row} == {(4 * 16, 6 * 16, 3)}
  assert [int(row[0][0, 0, 0]) for row in cells] == [0, 51, 102, 153, 204, 255]
  assert abs(int(cells[-1][1][0, 0, 0]) - 127.5) < 1  # half as bright


def test_without_validation_images_or_pictures_there_is_none(tmp_path):
  state = State.create({"net": np.zeros(1, np.float32)})
  nothing = types.SimpleNamespace(pictures=lambda *_: {})
  for data, method in ((data_set(3, True, True), nothing),
                       (types.SimpleNamespace(splits=("test",), validation=lambda: None), METHOD)):
    assert stage_pictures.write(tmp_path, 1, Stage("main", 5), method, state, data) is None
  assert not list(tmp_path.iterdir())
