"""Results in, pages out: ``report.render.render`` writes a report's folder.

A subject of the report (accuracy, geometry, ...) is one module of ``report.sections``, with its tables, figures, CSV
files and words. This package reads ``results`` as plain dictionaries and imports neither torch nor a model.
"""
