"""Pages of docs/ that are made from the code, and what holds for every page: `python -m tests.documents.write`."""
