"""Programs that write data sets to disk: python -m data_pipelines.prepare.<name>."""
