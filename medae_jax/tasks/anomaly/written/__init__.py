"""Files that predict writes of a scan: NIfTI beside each other or as a BIDS data set, and DICOM objects."""
