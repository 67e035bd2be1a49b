"""Data sets: the modules that config.data.name names, each with open(data_cfg, seed) -> DataSet."""
