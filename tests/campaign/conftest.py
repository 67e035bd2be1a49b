"""Nothing here runs unless asked for with `-m campaign`."""

import pytest


def pytest_collection_modifyitems(config, items):
  if "campaign" not in (config.getoption("-m") or ""):
    for item in items:
      if "campaign" in item.keywords:
        item.add_marker(pytest.mark.skip(reason="by hand: python -m pytest tests/campaign -m campaign"))
