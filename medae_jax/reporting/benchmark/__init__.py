"""The benchmark report (--mode=report): methods x data sets x scores, from whatever runs exist.

identity.py: what a run is, by its config; runs.py: which runs there are and which are missing; summary.py:
means, deviations, intervals, ranks; published.py: figures of the papers; picture.py: the
critical-difference picture; tables.py: CSV and Markdown; page.py: the HTML page; words.py: what they share.
"""
