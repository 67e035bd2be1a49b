"""File formats: the only readers and writers of images, NIfTI volumes and DICOM files."""
