"""What Kueue calls the Workload that it keeps for a Job: why a Job waits is said of the Workload, in Events."""

import hashlib

from lmft_operator.domain.facts import JobFacts, PodFacts

PENDING = "Pending"
"""Reason of its Warning Events: there is no room, and for want of what."""
_SHORTEST = 57
"""Kueue cuts names before the hash: at 247 characters, or at 57 if it is set up so."""


def workload_of(job: JobFacts) -> str:
    """By what the Workload of a Job is known here: see :func:`known_by`.

    The name is that of Kueue's ``GetWorkloadNameForOwnerWithGVK`` (0.17). Where another release names it otherwise, a
    run does not say why it waits.
    """
    digest = hashlib.sha1(f"Job\nbatch\n{job.name}\n{job.uid}".encode(), usedforsecurity=False).hexdigest()
    return known_by(job.namespace, f"job-{job.name}-{digest[:5]}")


def known_by(namespace: str, workload: str) -> str:
    """Namespace and name of a Workload, so far as all settings of Kueue agree on it."""
    stem, _, digest = workload.rpartition("-")
    return f"{namespace}/{stem[:_SHORTEST]}-{digest}"


def about(kind: str, version: str, namespace: str, name: str) -> str:
    """The Workload that an Event is about; empty if it is about something else."""
    return known_by(namespace, name) if kind == "Workload" and version.startswith("kueue.x-k8s.io/") else ""


def ids(facts: JobFacts | PodFacts) -> tuple[str, ...]:
    """Of what the Events are about a Job or a Pod."""
    return (facts.uid, workload_of(facts)) if isinstance(facts, JobFacts) else (facts.uid,)
