"""Files that predict writes of a scan: NIfTI (beside each other, or BIDS), DICOM objects, its picture."""
