"""MammoFlow: raw mammograms to lesion detectors, crop classifiers, relevance maps and figures.

One sub-package a stage, in the order data flows: `phantom` (the built-in study's raw data), `index`, `labels`,
`images`, `detect`, `crops`, `classify`, `explain`, `anatomy`, `report`, `diagnose`. No stage imports a later one. What
they share sits in the modules beside this file: `errors`, `tables` (column names, units, dtypes), `boxes`, `geometry`,
`provenance` (digests), `files` (whole-file writes) and `jobs` (logs and progress).
"""
