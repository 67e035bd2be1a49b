"""Data sets: the modules that config.data.name names.

Each declares its fields (`defaults`, `resolve`), says what it delivers (`spec`) and opens the files
(`build`); data_pipelines.modules.Module lists all it may define. No other module lies here.
"""
