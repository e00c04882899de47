"""The one function that every trigger leads to: observe, decide, apply.

It may run at any time, any number of times; what it finds done it does not do again.
"""

import asyncio
import functools
import json
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lmft_api import API_VERSION, KIND
from lmft_api.reasons import Phase, Reason
from lmft_api.run import run_folder
from lmft_api.spec import LMFineTuneSpec
from lmft_api.status import ConditionStatus, LMFineTuneStatus
from lmft_api.validation import Problem, parse_spec, spec_problems
from lmft_operator import manifests, metrics, policy, status
from lmft_operator.cache import Cache
from lmft_operator.cluster import Cluster
from lmft_operator.course import EXPLAINED, Decision, Notice, linked, notices
from lmft_operator.decide import decide
from lmft_operator.errors import ClusterError, ConflictError, ForbiddenError, InvalidObjectError, NotFoundError
from lmft_operator.facts import Key, Observed, RunFacts, job_facts
from lmft_operator.live import Heard, overlay
from lmft_operator.logs import about
from lmft_operator.manifests import Plan
from lmft_operator.progress import ProgressReport
from lmft_operator.settings import OperatorSettings
from lmft_operator.waiting import with_remedy

logger = logging.getLogger(__name__)
COMPONENT = "lmfinetune-operator"
BURST, BURST_SECONDS, BURST_PATIENCE = 20, 0.5, 15.0
"""So many Jobs in so many seconds are a burst; a first status waits for its end, but no longer than that."""
REFUSED_SECONDS = 15.0
"""How soon a Job that admission refused is tried again."""


class Reconciler:
    """Brings runs to where their manifests want them, one at a time for each key."""

    def __init__(
        self, cluster: Cluster, cache: Cache, settings: OperatorSettings, progress_ca: Callable[[], str | None]
    ) -> None:
        self._cluster, self._cache, self._settings = cluster, cache, settings
        self._progress_ca = progress_ca
        self._posting: set[asyncio.Task[None]] = set()
        self._created: deque[float] = deque(maxlen=BURST)
        self._heard: dict[Key, Heard] = {}
        self._listening_since = time.time()
        self.enqueue: Callable[[Key], None] = lambda key: None

    def reported(self, key: Key, report: ProgressReport) -> None:
        """A pod's newest report; it is worked in at the next look."""
        self._heard[key] = replace(self._heard_of(key), report=report)
        self.enqueue(key)

    def _heard_of(self, key: Key) -> Heard:
        return self._heard.get(key) or Heard(since=self._listening_since)

    async def __call__(self, key: Key) -> float | None:
        """One look at a run; returns the seconds until the next one is due, if time alone makes it due."""
        with metrics.RECONCILE_SECONDS.time():
            try:
                delay = await self._look(key)
            except ClusterError as problem:
                metrics.RECONCILES.labels("api_error").inc()
                logger.warning("the API server would not: %s", problem, **about(key))
                raise
            except Exception:
                metrics.RECONCILES.labels("bug").inc()
                logger.exception("a look at the run failed", **about(key))
                raise
            metrics.RECONCILES.labels("ok").inc()
            return delay

    async def _look(self, key: Key) -> float | None:
        seen = self._cache.observe(key, time.time())
        if seen is None:
            self._heard.pop(key, None)
            return None
        spec, problems = _read(seen.run, self._settings)
        if spec is not None and spec.resume_from is not None:
            source = self._cache.source(key, spec.resume_from.name)
            seen = Observed(seen.run, seen.now, seen.jobs, seen.pods, seen.warnings, source)
        decision = decide(seen, spec, problems, self._settings)
        if spec is not None:
            decision = self._with_progress(seen, spec, decision)
        try:
            return await self._apply(seen, spec, decision)
        except NotFoundError:
            # The run or a Job vanished under our hands; its deletion is on its way through the watch.
            logger.info("gone while it was looked at", **about(key))
            return 5.0 if key in self._cache.runs else None
        except ConflictError:
            fresh = await self._cluster.get_run(key)
            self._cache.run_seen(fresh, watched=False)
            return 0.05

    def _with_progress(self, seen: Observed, spec: LMFineTuneSpec, decision: Decision) -> Decision:
        key, uid = seen.run.key, seen.run.uid
        heard = self._heard_of(key)
        if decision.status.ended or (heard.report is not None and heard.report.run_uid != uid):
            self._heard.pop(key, None)
            heard = self._heard_of(key)
        uri = spec.output.uri if spec.output and spec.output.uri else ""
        folder = run_folder(uri, key.namespace, key.name, uid)
        before = status.parse(seen.run.status)
        found = overlay(before, decision.status, heard, seen.now, self._settings, folder)
        if found.pace != heard.pace:
            self._heard[key] = replace(heard, pace=found.pace)
        looks = [look for look in (decision.look_again, found.look_again) if look is not None]
        return replace(decision, status=found.status, look_again=min(looks, default=None))

    async def _apply(self, seen: Observed, spec: LMFineTuneSpec | None, decision: Decision) -> float | None:
        run = seen.run
        if decision.delete_run:
            await self._cluster.delete_run(run.key, run.uid)
            return 30.0
        uids = {job.name: job.uid for job in seen.jobs}
        for name in decision.delete_jobs:
            await self._delete_job(run.key, name, uids[name])
        if decision.create is not None and spec is not None:
            refused = await self._create(run, spec, decision.create)
            if refused is not None:
                before = status.parse(run.status)
                await self._write(run, refused(status.change(before, {"model": decision.status.model})), decision)
                return REFUSED_SECONDS
        if self._words_can_wait(seen, decision):
            return BURST_SECONDS
        await self._write(run, decision.status, decision)
        return decision.look_again

    def _words_can_wait(self, seen: Observed, decision: Decision) -> bool:
        """Whether Jobs come before words: in a burst the first status of a run waits until no more Jobs are created.

        The API server is what limits a burst, and a status is half of what it is asked for. A Job that exists is known
        by its label, so nothing rests on the status having been written.
        """
        burst = len(self._created) == BURST and time.monotonic() - self._created[0] < BURST_SECONDS
        first = decision.status.attempts is not None and not status.parse(seen.run.status).attempts
        return burst and first and not decision.status.ended and seen.now - seen.run.created < BURST_PATIENCE

    async def _delete_job(self, key: Key, name: str, uid: str) -> None:
        try:
            await self._cluster.delete_job(key.namespace, name, uid)
        except (NotFoundError, ConflictError):
            logger.info("Job %s is gone already", name, **about(key))

    async def _create(
        self, run: RunFacts, spec: LMFineTuneSpec, plan: Plan
    ) -> Callable[[LMFineTuneStatus], LMFineTuneStatus] | None:
        """Create the Job of an attempt; when admission refuses it, returns what to say about that."""
        rules = self._settings.policy.for_namespace(run.key.namespace)
        manifest = manifests.build(plan, run, spec, self._settings, rules, self._progress_ca())
        try:
            created = await self._cluster.create_job(manifest)
        except ConflictError:
            created = await self._settle_name(run, manifest, plan)
        except (ForbiddenError, InvalidObjectError) as problem:
            logger.warning("the Job was refused: %s", problem, **about(run.key))
            return functools.partial(_refused, run=run, settings=self._settings, problem=problem)
        self._created.append(time.monotonic())
        logger.info("attempt %d: Job %s", plan.attempt, created["metadata"]["name"], **about(run.key))
        self._cache.job_written(created)
        return None

    async def _settle_name(self, run: RunFacts, manifest: dict[str, Any], plan: Plan) -> dict[str, Any]:
        """A Job of that name exists: ours from before a crash, or somebody else's, whom we step aside for."""
        existing = await self._cluster.get_job(run.key.namespace, plan.name)
        if job_facts(existing).owner == run.uid:
            return existing
        manifest["metadata"]["name"] = manifests.job_name(run.key.name, plan.attempt, plan.stage, run.uid)
        return await self._cluster.create_job(manifest)

    async def _write(self, run: RunFacts, after: LMFineTuneStatus, decision: Decision) -> None:
        before = status.parse(run.status)
        after = self._with_job_names(run, after)
        patch = status.merge_patch(before.to_json(), after.to_json())
        if patch:
            answer = await self._cluster.patch_status(run.key, run.version, patch)
            self._cache.run_written(answer)
            self._count(run.key, before, after)
            for waiting in self._cache.dependants(run.key):
                self.enqueue(waiting)
            for notice in notices(before, after, decision.closed):
                self._post(run, notice)
        self._cache.settle(run.uid, [a.number for a in after.attempts or () if a.end_time is not None])

    def _with_job_names(self, run: RunFacts, after: LMFineTuneStatus) -> LMFineTuneStatus:
        """Attempts under the names that their Jobs really have."""
        seen = self._cache.observe(run.key, 0.0)
        names = {job.attempt: job.name for job in seen.jobs} if seen else {}
        attempts = [
            status.change(a, {"job": names[a.number]}) if names.get(a.number, a.job) != a.job else a
            for a in after.attempts or ()
        ]
        return status.change(after, {"attempts": attempts}) if attempts else after

    @staticmethod
    def _count(key: Key, before: LMFineTuneStatus, after: LMFineTuneStatus) -> None:
        open_before = {a.number for a in before.attempts or () if a.end_time is not None}
        for attempt in after.attempts or ():
            if attempt.end_time is not None and attempt.number not in open_before:
                metrics.ATTEMPTS.labels(key.namespace, attempt.reason or "").inc()
        if after.usage is not None:
            seconds, gpu = (before.usage.seconds, before.usage.gpu_seconds) if before.usage else (0, 0)
            metrics.SECONDS.labels(key.namespace).inc(max(0, after.usage.seconds - seconds))
            metrics.GPU_SECONDS.labels(key.namespace).inc(max(0, after.usage.gpu_seconds - gpu))

    def _post(self, run: RunFacts, notice: Notice) -> None:
        """Post an Event beside the work: a lost one is a pity, a run held up by one would be a fault."""
        task = asyncio.create_task(self._post_event(run, notice))
        self._posting.add(task)
        task.add_done_callback(self._posting.discard)

    async def _post_event(self, run: RunFacts, notice: Notice) -> None:
        now = status.timestamp(time.time())
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{run.key.name[:200]}-", "namespace": run.key.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": run.key.namespace,
                "name": run.key.name,
                "uid": run.uid,
            },
            "type": "Warning" if notice.warning else "Normal",
            "reason": notice.reason,
            "message": status.cut(notice.message, 1000),
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._cluster.post_event(run.key.namespace, event)
        except ClusterError as problem:
            logger.warning("an Event was lost: %s", problem, **about(run.key))


def _read(run: RunFacts, settings: OperatorSettings) -> tuple[LMFineTuneSpec | None, tuple[str, ...]]:
    """The spec with the platform's defaults, and everything that is wrong with it."""
    raw = json.loads(run.spec)
    if found := spec_problems(raw):
        return None, tuple(str(problem) for problem in found)
    spec = parse_spec(raw)
    problems = policy.refusals(spec, settings, run.key.namespace)
    spec = manifests.with_defaults(spec, settings)
    if spec.output is None or spec.output.uri is None:
        problems.append(Problem("spec.output.uri", "is required: the platform team has configured no default"))
    if spec.resume_from is not None and spec.resume_from.name == run.key.name:
        words = "names this run itself, which would wait for its own end; leave it out: a run goes on by itself"
        problems.append(Problem("spec.resumeFrom.name", words))
    return spec, tuple(str(problem) for problem in problems)


def _refused(
    before: LMFineTuneStatus, run: RunFacts, settings: OperatorSettings, problem: ClusterError
) -> LMFineTuneStatus:
    """The status of a run whose Job was refused: by a quota, by admission, or as no valid Job at all."""
    now = time.time()
    # A policy of the cluster may answer 422 too; it is the platform's to change, and the run need not.
    if problem.status == 422 and " is invalid: " in str(problem) and not before.attempts:
        words = linked(settings, Reason.INVALID_SPEC, f"The manifest makes no valid Job: {problem}")
        after = status.with_condition(
            before, ConditionStatus.FALSE, Reason.INVALID_SPEC, words, Phase.FAILED, now, run.generation
        )
        return status.change(after, {"completion_time": before.completion_time or status.timestamp(now)})
    reason = Reason.QUOTA_EXCEEDED if "exceeded quota" in str(problem) else Reason.PENDING
    message = with_remedy(reason, f"The Job cannot be created: {problem}")
    if reason in EXPLAINED:
        message = linked(settings, reason, message)
    return status.with_condition(before, ConditionStatus.UNKNOWN, reason, message, Phase.PENDING, now, run.generation)
