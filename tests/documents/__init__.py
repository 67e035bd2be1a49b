"""Pages of docs/ made from the code (`python -m tests.documents.write`), and what holds for all pages."""
