"""What a run leaves for people: ``report.json`` (model), ``report.html`` (page, charts) and the model card (card)."""
