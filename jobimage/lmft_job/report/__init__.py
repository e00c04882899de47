"""Reports of a run: ``report.json`` (model), ``report.html`` (page, charts) and the model card (card)."""
