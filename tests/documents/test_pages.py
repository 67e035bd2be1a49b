"""Pages made from the code are up to date; links lead somewhere; every page is in the navigation."""

import re

import pytest
import yaml

from tests.contract.cases import ROOT
from tests.documents import write

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("name", sorted(write.PAGES))
def test_made_pages_are_up_to_date(name):
  text = write.PAGES[name]()
  assert text == (ROOT / "docs" / name).read_text(encoding="utf-8"), "python -m tests.documents.write"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files(page):
  for target in LINK.findall(page.read_text(encoding="utf-8")):
    if not target.startswith(("http://", "https://", "#", "mailto:")):
      assert (page.parent / target.partition("#")[0]).exists(), target


def _navigation(node):
  if isinstance(node, str):
    yield node
  else:
    for child in node.values() if isinstance(node, dict) else node:
      yield from _navigation(child)


def test_the_navigation_names_pages_that_are_there_once():
  """A page that it does not name comes under "More" (site_hook.py)."""
  nav = list(_navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
  there = {p.name for p in (ROOT / "docs").glob("*.md")} | {"CONTRIBUTING.md", "CHANGELOG.md"}
  assert len(nav) == len(set(nav)) and set(nav) <= there


def test_every_data_set_says_where_it_is_to_be_had():
  page = (ROOT / "docs/data_sets.md").read_text(encoding="utf-8")
  for path in (ROOT / "data_pipelines/datasets").glob("[a-z]*.py"):
    assert f"`{path.stem}`" in page, path.stem


def test_every_method_is_on_the_page_of_methods():
  from medae_jax.core import method
  page = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
  assert not [name for name in method.names() if f"`{name}`" not in page]


def test_the_site_builds_and_fetches_nothing(tmp_path):
  """Strict: no dead link, no page outside the navigation; no font, script or picture from elsewhere."""
  pytest.importorskip("mkdocs")
  pytest.importorskip("material")
  from mkdocs.commands import build
  from mkdocs.config import load_config
  build.build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True))
  pages = list((tmp_path / "site").rglob("*.html"))
  assert len(pages) > 35
  for page in pages:
    text = page.read_text(encoding="utf-8")
    fetched = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=[\"']?(https?:[^\"' >]+)", text)
    fetched += [link for link in re.findall(r"<link[^>]*https?:[^>]*>", text)
                if re.search("stylesheet|preconnect|preload", link)]
    assert not fetched, page.name
