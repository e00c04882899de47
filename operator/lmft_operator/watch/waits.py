"""Which runs wait to start from which others, and when such a run has become ready."""

from collections.abc import Mapping
from dataclasses import replace

from lmft_api.status.reading import read_status
from lmft_operator.domain.facts import Key, ResumeSource, RunFacts


class Waits:
    """Runs that wait for others.

    Args:
        runs: all runs, from the cache.
    """

    def __init__(self, runs: Mapping[Key, RunFacts]) -> None:
        self._runs = runs
        self._waiting: dict[Key, dict[Key, ResumeSource]] = {}
        """By the run that others wait for: those others, and what they last saw of it."""

    def __len__(self) -> int:
        """How many runs are waited for."""
        return len(self._waiting)

    def source(self, waiting: Key, name: str) -> ResumeSource:
        """The run that ``waiting`` wants to start from; when that run changes, ``waiting`` is looked at again."""
        key = Key(waiting.namespace, name)
        found = replace(self._as_source(key), circle=self._circle(waiting))
        self._waiting.setdefault(key, {})[waiting] = found
        return found

    def dependants(self, key: Key) -> set[Key]:
        """Runs that wait for this one and for which it has changed; its progress by a step is not such a change."""
        waiting = self._waiting.get(key)
        if not waiting:
            return set()
        now = self._as_source(key)
        news = {other for other, seen in waiting.items() if replace(now, circle=self._circle(other)) != seen}
        for other in news:
            del waiting[other]
        return news

    def prune(self) -> None:
        """Forget the waits of runs that no longer exist."""
        waiting = {
            source: {key: seen for key, seen in others.items() if key in self._runs}
            for source, others in self._waiting.items()
        }
        self._waiting = {source: others for source, others in waiting.items() if others}

    def _as_source(self, key: Key) -> ResumeSource:
        run = self._runs.get(key)
        if run is None:
            return ResumeSource(exists=False)
        status = read_status(run.status)
        uri = status.results.model_uri if status.results else None
        if uri is None and status.checkpoint is not None:
            uri = status.checkpoint.uri  # it holds model and tokenizer too
        return ResumeSource(True, status.ended, uri)

    def _circle(self, start: Key) -> tuple[str, ...]:
        """Names of the runs that wait for each other in a cycle with this one; empty when there is none.

        A run that has begun waits for no other: it knows what it started from.
        """
        names: dict[str, None] = {}
        key = start
        while (run := self._runs.get(key)) is not None and run.resumes and '"attempts":[' not in run.status:
            if key.name in names:
                break
            names[key.name] = None
            key = Key(start.namespace, run.resumes)
            if key == start and len(names) > 1:
                return tuple(names)
        return ()
