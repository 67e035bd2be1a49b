"""The page of --mode=serve and the pages of evaluate and predict in a real Chromium."""

import time

import nibabel
import numpy as np
import pytest

from medae_jax.core import calibration
from tests.unit.modes.test_predict import brain, go, save
from tests.unit.serving import asking, chromium

pytestmark = chromium.needed
_ANSWERED = "!document.querySelector('#result').hidden || !document.querySelector('#error').hidden"


def text(page, selector):
  return page.run(f"document.querySelector('{selector}').innerText")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
  with chromium.page(tmp_path_factory.mktemp("profile")) as found:
    yield found


def accepted(page):
  """Nothing complained of, nothing without words, nothing to scroll sideways."""
  assert page.errors == [] and page.without_words() == [] and page.wider_than_the_window() == 0


def test_a_scan_is_dropped_seen_and_thresholded(page, app, served_run, drop_folder, tmp_path):
  save(tmp_path / "in", brain())
  (row,) = go(served_run, tmp_path / "in", tmp_path / "out")
  with asking.server(app) as url:
    page.open(url)
    page.until("document.querySelector('#about').innerText.startsWith('Run ')")
    page.drop("#drop", sorted((tmp_path / "in").iterdir()))
    page.until(_ANSWERED)
    page.until("document.querySelector('#status').innerText.startsWith('Scored')")
    assert text(page, "#error") == "" and text(page, "#name") == "p1"
    assert f"score {row['score']:.4g}" in text(page, "#verdict")
    assert text(page, "#slice-now") == f"{row['highest_slice'] + 1} of 4"
    assert f"{row['mask_ml']:.4g} ml (the threshold of the mask file)" in text(page, "#above")
    assert page.run("[...document.querySelectorAll('#files a')].map(a => a.download)") == [
        "p1_anomaly.nii.gz", "p1_mask.nii.gz", "p1_overlay.png"]
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.run("document.querySelectorAll('#files a')[1].click()")
    loaded, wanted = tmp_path / "p1_mask.nii.gz", nibabel.load(tmp_path / "out/p1_mask.nii.gz")
    end = time.monotonic() + 30
    while not loaded.exists() and time.monotonic() < end:
      time.sleep(0.05)
    np.testing.assert_array_equal(nibabel.load(loaded).get_fdata(), wanted.get_fdata())
    outlined = """(c => { let n = 0;
      const copy = new OffscreenCanvas(c.width, c.height).getContext('2d', {willReadFrequently: true});
      copy.drawImage(c, 0, 0);
      const d = copy.getImageData(0, 0, c.width, c.height).data;
      for (let i = 0; i < d.length; i += 4) n += d[i] === 70 && d[i + 1] === 230;
      return n; })(document.querySelector('#map'))"""
    assert page.run(outlined) > 0
    for width in (500, 1280):
      page.size(width)
      accepted(page)
    # The keyboard moves the slider: fewer pixels are above a higher threshold.
    page.run("document.querySelector('#threshold').focus()")
    page.press("End", 35)
    assert " 0 ml (small regions not removed)" in text(page, "#above")
    assert "0 % of it above the threshold" in page.run("document.querySelector('#map').ariaLabel")
    assert page.run(outlined) == 0
    page.press("Home", 36)
    page.run("document.querySelector('#again button').click()")
    scored = "document.querySelector('#status').innerText.startsWith('Scored')"
    page.until(f"{scored} && document.querySelector('#again').hidden")
    page.run("document.querySelector('#slice').focus()")
    page.press("ArrowRight", 39)
    assert text(page, "#slice-now") == f"{row['highest_slice'] + 2} of 4"
    (tmp_path / "notes.txt").write_text("hello")
    page.drop("#drop", [tmp_path / "notes.txt"])
    page.until("!document.querySelector('#error').hidden")
    assert "no scan and no image" in text(page, "#error")
    assert page.run("document.querySelector('#result').hidden")
    assert [e for e in page.errors if "415" not in e] == [] and calibration.read(served_run)
    page.errors.clear()
  assert not list(drop_folder.iterdir())


def test_the_pages_of_evaluate_and_predict(page, served_run, tmp_path):
  save(tmp_path / "in", brain())
  save(tmp_path / "in", brain(1), name="a_long_name_" * 6)
  go(served_run, tmp_path / "in", tmp_path / "out")
  for path in (served_run / "report.html", tmp_path / "out/predictions.html"):
    for width, dark in ((500, True), (1280, False)):
      page.open(path.as_uri(), width, dark=dark)
      accepted(page)
      assert page.run("document.images.length") > 0
      assert page.run("[...document.images].every(i => i.naturalWidth > 0 || i.loading === 'lazy')")
