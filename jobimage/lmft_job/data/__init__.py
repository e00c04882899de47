"""From a manifest's data set to rows that a Trainer can take; :func:`lmft_job.data.prepared.prepare` is the way in."""
