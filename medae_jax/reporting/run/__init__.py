"""The page of one run: what evaluate and train wrote, read with care, as the fields of templates/run.html."""
