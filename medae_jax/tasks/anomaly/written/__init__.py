"""Files that predict writes of a scan: NIfTI beside each other or as a BIDS data set, DICOM objects, and its picture."""
