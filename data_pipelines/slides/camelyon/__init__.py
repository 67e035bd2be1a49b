"""Camelyon16 from slides to patches: the nine steps of ninatu/anomaly_detection, each resumable by slide.

settings (what is asked for), source (what there is), steps and colours (the work on
one slide), slide_job (one slide from first to last), finish (lists, manifest, report), run and beam (many
slides: processes, machines).
"""
