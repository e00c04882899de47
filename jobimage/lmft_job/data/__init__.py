"""From a manifest's data set to rows that a Trainer can take; the entry is :func:`lmft_job.data.prepared.prepare`."""
