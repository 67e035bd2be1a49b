"""The one door: what a user gives is found, read, named, split and checked here.

Each rule has one module: tables and lists, words, patients, splits and their leaks, geometry, the
search for files, the names of results. Data sets and modes call these and have no rule of their own.
"""
