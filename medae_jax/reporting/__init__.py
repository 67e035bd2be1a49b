"""What people look at: panels, tables, plots, the page that holds them; --mode=list.

Numpy only; no networks and no data sets.
"""
