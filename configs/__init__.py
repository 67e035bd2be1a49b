"""Experiments, one a file: get_config(argument) -> locked ConfigDict, with command and cost on top.

common.py holds the fields that all of them share, fields/ those of a family of experiments.
"""
