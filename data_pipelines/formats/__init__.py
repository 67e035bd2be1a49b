"""File formats: the only readers and writers of images, DICOM files and NIfTI volumes.

Whatever a library raises over a damaged file becomes one UserError here, in one place a format.
Nothing in this folder knows of data sets.
"""
