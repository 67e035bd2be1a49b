"""Hook of mkdocs (mkdocs.yml): pages and notebooks that lie beside docs/ become part of the site."""

from __future__ import annotations

import pathlib

from mkdocs.structure import files as site_files

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md")


def on_config(config):
  """Pages that mkdocs.yml does not name yet are found under "More"."""
  text = str(config["nav"])
  more = [p.name for p in sorted((ROOT / "docs").glob("*.md")) if f"'{p.name}'" not in text]
  if more:
    config["nav"].append({"More": more})
  return config


def on_files(files, config):
  """Adds them; their links to docs/ become links within the site."""
  for name in PAGES:
    text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(site_files.File.generated(config, name, content=text))
  for path in sorted((ROOT / "examples").glob("*.ipynb")):
    files.append(site_files.File.generated(config, f"examples/{path.name}", abs_src_path=str(path)))
  return files


def on_page_markdown(markdown, page, config, files):
  """A page of docs/ reaches what lies beside docs/ by "../", which is "" in the site."""
  del page, config, files
  for name in (*PAGES, "examples/"):
    markdown = markdown.replace(f"](../{name}", f"]({name}")
  return markdown
