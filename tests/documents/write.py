"""Writes the pages that are made from the code: `python -m tests.documents.write`."""

from tests.contract.cases import ROOT
from tests.documents import api_page, fields_page, wishes_page

PAGES = {"config_fields.md": fields_page.page, "api_reference.md": api_page.page,
         "wishes.md": wishes_page.page}


def main() -> None:
  """Writes docs/<name> of every page."""
  for name, page in PAGES.items():
    (ROOT / "docs" / name).write_text(page(), encoding="utf-8")
    print(f"docs/{name}")


if __name__ == "__main__":
  main()
