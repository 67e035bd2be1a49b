"""Measures over whole data sets, one family a file; dictionary.py has the name, unit and meaning of each."""
