"""Metrics over whole data sets: detection (AP, AUROC, Dice from histograms), components, bootstrap."""
