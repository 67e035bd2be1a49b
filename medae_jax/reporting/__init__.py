"""What people look at: panels, tables, plots and the page that holds them.

Numpy only; no networks and no data sets.
"""
