"""The one function that every trigger calls: observe, decide, apply.

It is idempotent: it may run at any time, any number of times.
"""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lmft_api import API_VERSION, KIND
from lmft_api.manifest.validation import Problem, parse_readable, parse_spec, spec_problems
from lmft_api.reasons import Reason
from lmft_api.spec import LMFineTuneSpec
from lmft_api.status import LMFineTuneStatus
from lmft_api.text.times import timestamp
from lmft_api.text.wording import shorten
from lmft_operator.cluster import beside
from lmft_operator.cluster.client import Cluster
from lmft_operator.cluster.errors import (
    ClusterError,
    ConflictError,
    ForbiddenError,
    InvalidObjectError,
    NameTakenError,
    NotFoundError,
    SilentError,
)
from lmft_operator.cluster.nodes import SpareNodes
from lmft_operator.decide import admission, elastic
from lmft_operator.decide.admission import CANNOT_CREATE_JOB
from lmft_operator.decide.draft import Decision, DecisionDraft, Notice, notices
from lmft_operator.decide.run import decide
from lmft_operator.domain import alterations
from lmft_operator.domain.facts import Key, Observed, RunFacts, job_facts
from lmft_operator.domain.plan import Plan
from lmft_operator.jobs import manifest, peers, policy
from lmft_operator.process import metrics
from lmft_operator.process.logs import about
from lmft_operator.settings import OperatorSettings
from lmft_operator.status import counting, edit
from lmft_operator.status.change import change
from lmft_operator.status.progress import ProgressReport, merged
from lmft_operator.status.throttle import ReceivedReports, overlay
from lmft_operator.watch.cache import Cache

logger = logging.getLogger(__name__)
COMPONENT = "lmfinetune-operator"
CHANGED = "JobChanged"
"""Reason of the Event about a Job that the cluster's policies have changed."""
BURST, BURST_SECONDS, BURST_PATIENCE = 20, 0.5, 15.0
"""This many Jobs in this many seconds are a burst; a first status waits for its end, but not longer than that."""
REFUSED_SECONDS = 15.0
"""Seconds until a Job that admission refused is tried again."""
SUSPICIOUS_SECONDS = 5.0
"""Seconds until a run is looked at again when the API server has an older version than we saw."""


class Reconciler:
    """Brings runs to the state that their manifests want, one look at a time for each run.

    Args:
        cluster: client of the API server.
        cache: what is known of the cluster.
        settings: the operator's settings.
        progress_ca: PEM text of the authority that pods trust for their progress reports; None without one.
        enqueue: schedules a look at a run.
        suspicious: requests a comparison with full lists.
        clock: UNIX seconds.
    """

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        settings: OperatorSettings,
        *,
        progress_ca: Callable[[], str | None],
        enqueue: Callable[[Key], None],
        suspicious: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._cluster, self._cache, self._settings = cluster, cache, settings
        self._spare = SpareNodes(cluster)
        self._progress_ca, self._enqueue, self._suspicious = progress_ca, enqueue, suspicious
        self._posting: set[asyncio.Task[None]] = set()
        self._created: deque[float] = deque(maxlen=BURST)
        self._received: dict[Key, ReceivedReports] = {}
        self._listening_since: float | None = None

    def reported(self, key: Key, report: ProgressReport) -> None:
        """Record a pod's newest report; the next look uses it."""
        self._received[key] = replace(self._received_of(key), report=report)
        self._enqueue(key)

    def _received_of(self, key: Key) -> ReceivedReports:
        return self._received.get(key) or ReceivedReports(since=self._first_look())

    def _first_look(self) -> float:
        """When this operator began to decide (UNIX seconds): pods are silent before, for nobody listens.

        Not when the process began: its clock is set by the API server's first answer, and it may have been on standby.
        """
        if self._listening_since is None:
            self._listening_since = self._clock()
        return self._listening_since

    async def __call__(self, key: Key) -> float | None:
        """Look at a run once; returns the seconds until the next look is due, if time alone makes it due."""
        with metrics.RECONCILE_SECONDS.time():
            try:
                delay = await self._look(key)
            except ClusterError as problem:
                metrics.RECONCILES.labels("api_error").inc()
                logger.warning("the API server did not carry it out: %s", problem, **about(key))
                raise
            except Exception:
                metrics.RECONCILES.labels("bug").inc()
                logger.exception("reconciling the run failed", **about(key))
                raise
            metrics.RECONCILES.labels("ok").inc()
            return delay

    async def _look(self, key: Key, room: int | None = None) -> float | None:
        self._first_look()
        seen = self._cache.observe(key, self._clock())
        if seen is None:
            self._received.pop(key, None)
            return None
        seen = replace(seen, room=room)
        spec, problems = read_spec(seen.run, self._settings)
        if spec.resume_from is not None:
            seen = replace(seen, source=self._cache.source(key, spec.resume_from.name))
        if not problems and room is None and (asked := elastic.asks(seen, spec, self._settings)) is not None:
            return await self._look(key, await self._spare.room_for(*asked))  # time has passed: observe again
        decision = self._with_progress(seen, spec, self._decide(seen, spec, problems))
        try:
            return await self._apply(seen, spec, decision)
        except NotFoundError:
            # The run or a Job was deleted meanwhile; the watch will show it.
            logger.info("deleted while it was reconciled", **about(key))
            if await self._cluster.has_run(key, seen.run.uid):
                return 5.0 if key in self._cache.runs else None
            # No watch shows it where the database was restored to a time before the run; its Jobs are collected as soon
            # as they are made, and each would be followed by the next. Full lists will show whether it is so.
            self._cache.run_vanished(seen.run)
            self._suspicious()
            return None
        except ConflictError:
            fresh = await self._cluster.get_run(key)
            if self._cache.newer_than(fresh):
                # Only a restored database has an older version of it; full lists will show whether that is so.
                self._suspicious()
                return SUSPICIOUS_SECONDS
            self._cache.run_seen(fresh, watched=False)
            return 0.05

    def _decide(self, seen: Observed, spec: LMFineTuneSpec, problems: tuple[str, ...]) -> Decision:
        """The decision. An attempt's last report that is not written yet is merged with its end, or would be lost."""
        decision = decide(seen, spec, problems, self._settings)
        report, before = self._received_of(seen.run.key).report, seen.status
        folder = manifest.folder_of(seen.run, spec)
        if report is None or report.run_uid != seen.run.uid or folder is None:
            return decision
        if all(attempt.number != report.attempt for attempt in counting.ended_since(before, decision.status)):
            return decision
        return decide(replace(seen, status=merged(before, report, folder)), spec, problems, self._settings)

    def _with_progress(self, seen: Observed, spec: LMFineTuneSpec, decision: Decision) -> Decision:
        key = seen.run.key
        received = self._received_of(key)
        if decision.status.ended or (received.report is not None and received.report.run_uid != seen.run.uid):
            self._received.pop(key, None)
            received = self._received_of(key)
        folder = manifest.folder_of(seen.run, spec)
        if folder is None:
            return decision
        found = overlay(seen.status, decision.status, received, seen.now, self._settings, folder)
        if found.pace != received.pace:
            self._received[key] = replace(received, pace=found.pace)
        looks = [look for look in (decision.look_again, found.look_again) if look is not None]
        return replace(decision, status=found.status, look_again=min(looks, default=None))

    async def _apply(self, seen: Observed, spec: LMFineTuneSpec, decision: Decision) -> float | None:
        run = seen.run
        if decision.delete_run:
            await self._cluster.delete_run(run.key, run.uid)
            return 30.0
        uids = {job.name: job.uid for job in seen.jobs}
        for name in decision.delete_jobs:
            await self._delete_job(run.key, name, uids[name])
        for number in decision.delete_services:
            name = peers.service_name(run.uid, number)
            await beside.withdraw(self._cluster, self._beside(), run.key.namespace, name, run.uid)
        if decision.create is not None:
            problem = await self._create(run, spec, decision.create)
            if problem is not None:
                after = _refused(DecisionDraft(seen, spec, self._settings, _without_plan(seen, decision)), problem)
                await self._write(seen, after, decision)
                return REFUSED_SECONDS
        if self._words_can_wait(seen, decision):
            return BURST_SECONDS
        await self._write(seen, decision.status, decision)
        return decision.look_again

    def _words_can_wait(self, seen: Observed, decision: Decision) -> bool:
        """Whether Jobs come before status: in a burst a run's first status waits until no more Jobs are created.

        The API server's rate limits a burst, and status writes are half of its load. A Job that exists is found by its
        label, so nothing depends on the status having been written.
        """
        burst = len(self._created) == BURST and time.monotonic() - self._created[0] < BURST_SECONDS
        first = decision.status.attempts is not None and not seen.status.attempts
        return burst and first and not decision.status.ended and seen.now - seen.run.created < BURST_PATIENCE

    async def _delete_job(self, key: Key, name: str, uid: str) -> None:
        try:
            await self._cluster.delete_job(key.namespace, name, uid)
        except (NotFoundError, ConflictError):
            logger.info("Job %s is gone already", name, **about(key))

    async def _create(self, run: RunFacts, spec: LMFineTuneSpec, plan: Plan) -> ClusterError | None:
        """Create the Job of an attempt; when admission refuses it, returns why."""
        rules = self._settings.policy.for_namespace(run.key.namespace)
        other = manifest.job_name(run.key.name, plan.attempt, plan.stage, run.uid, plan.nodes)

        def build(name: str) -> dict[str, Any]:
            return manifest.build(replace(plan, name=name), run, spec, self._settings, rules, self._progress_ca())

        job = build(plan.name)
        try:
            if plan.nodes > 1:
                made = {"NetworkPolicy": peers.policy, "Service": peers.service}
                for kind in self._beside():
                    await beside.provide(self._cluster, made[kind](job), run.uid)
            going: list[str] = []
            created = await self._create_or_adopt(run, job, going)
            created = created or await self._create_or_adopt(run, build(other), going)
            if created is None:
                words = f"Jobs {plan.name} and {other} exist and are not this run's; delete one of them."
                # Perhaps withdrawn by an earlier process of this operator, which alone knew why.
                raise NameTakenError(409, admission.name_in_deletion(going) if going else words)
        except ClusterError as problem:
            if not isinstance(problem, ForbiddenError | InvalidObjectError | NameTakenError | SilentError) and (
                not admission.at_work(str(problem))
            ):
                raise
            logger.warning("the Job was refused: %s", problem, **about(run.key))
            return problem
        if words := alterations.unusable(job, created):
            logger.warning("%s", words, **about(run.key))
            # The watch may have shown it already, and it must not count as an attempt.
            self._cache.job_withdrawn(created)
            await self._delete_job(run.key, created["metadata"]["name"], created["metadata"]["uid"])
            return InvalidObjectError(422, words)
        if changes := alterations.altered(created["spec"], plan.nodes):
            logger.warning("%s", alterations.explained(changes), **about(run.key))
            self._post(run, Notice(True, CHANGED, alterations.explained(changes)))
        self._created.append(time.monotonic())
        logger.info("attempt %d: Job %s", plan.attempt, created["metadata"]["name"], **about(run.key))
        self._cache.job_written(created)
        return None

    def _beside(self) -> tuple[str, ...]:
        """Kinds of objects that an attempt on several nodes has beside its Job; pods are isolated before they meet."""
        return ("NetworkPolicy", "Service") if self._settings.job.isolate_peers else ("Service",)

    async def _create_or_adopt(self, run: RunFacts, job: dict[str, Any], going: list[str]) -> dict[str, Any] | None:
        """The Job: created now, or ours from before a crash; None if its name is somebody else's.

        A name that is taken by a Job in deletion is added to ``going``.
        """
        try:
            return await self._cluster.create_job(job)
        except ConflictError as problem:
            if admission.at_work(str(problem)):
                raise  # a webhook chooses the status of its refusal
            existing = await self._existing(run.key, job["metadata"]["name"])
            if existing is None:
                raise
            facts = job_facts(existing)
            if facts.owner == run.uid:
                return existing
            if self._cache.buried(facts.uid) and (words := alterations.unusable(job, existing)):
                # Withdrawn a moment ago, and the garbage collector has yet to remove it: the refusal stands.
                raise InvalidObjectError(422, words) from problem
            if facts.deleting:
                going.append(facts.name)
            return None

    async def _existing(self, key: Key, name: str) -> dict[str, Any] | None:
        try:
            return await self._cluster.get_job(key.namespace, name)
        except NotFoundError:
            return None

    async def _write(self, seen: Observed, after: LMFineTuneStatus, decision: Decision) -> None:
        run, before = seen.run, seen.status
        after = self._with_job_names(run, after)
        patch = edit.patch(run.status, before, after)
        if patch:
            answer = await self._cluster.patch_status(run.key, run.version, patch)
            self._cache.run_written(answer)
            counting.count(run.key, before, after)
            for waiting in self._cache.dependants(run.key):
                self._enqueue(waiting)
            for notice in notices(before, after, decision.closed):
                self._post(run, notice)
        self._cache.settle(run.uid, [a.number for a in after.attempts or () if a.end_time is not None])

    def _with_job_names(self, run: RunFacts, after: LMFineTuneStatus) -> LMFineTuneStatus:
        """The status with the names that the attempts' Jobs really have."""
        names = self._cache.job_names(run)
        attempts = [
            change(a, job=names[a.number]) if names.get(a.number, a.job) != a.job else a for a in after.attempts or ()
        ]
        return change(after, attempts=attempts) if attempts else after

    def _post(self, run: RunFacts, notice: Notice) -> None:
        """Post an Event in the background: losing one is acceptable, delaying a run for one is not."""
        task = asyncio.create_task(self._post_event(run, notice))
        self._posting.add(task)
        task.add_done_callback(self._posting.discard)

    async def _post_event(self, run: RunFacts, notice: Notice) -> None:
        now = timestamp(self._clock())
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
            "message": shorten(notice.message, 1000),
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


def read_spec(run: RunFacts, settings: OperatorSettings) -> tuple[LMFineTuneSpec, tuple[str, ...]]:
    """The spec with the platform's defaults, or its readable parts, and everything that is wrong with it."""
    raw = json.loads(run.spec)
    if run.unread:
        return parse_readable(raw), (run.unread,)
    if found := spec_problems(raw):
        return parse_readable(raw), tuple(str(problem) for problem in found)
    spec = parse_spec(raw)
    problems = policy.refusals(spec, settings, run.key.namespace)
    spec = manifest.with_defaults(spec, settings)
    if spec.output is None or spec.output.uri is None:
        problems.append(Problem("spec.output.uri", "is required: the platform team has configured no default"))
    if spec.resume_from is not None and spec.resume_from.name == run.key.name:
        words = "is this run itself, which would wait for its own end; remove it: a run resumes by itself"
        problems.append(Problem("spec.resumeFrom.name", words))
    return spec, tuple(str(problem) for problem in problems)


def _without_plan(seen: Observed, decision: Decision) -> LMFineTuneStatus:
    """The decided status without the attempt whose Job was refused; the end of the one before it is kept."""
    planned = decision.create.attempt if decision.create is not None else 0
    attempts = [attempt for attempt in decision.status.attempts or () if attempt.number != planned]
    if attempts:
        return change(decision.status, attempts=attempts)
    # Before the first attempt nothing is fixed, and the manifest may still change.
    return change(seen.status, model=decision.status.model)


def _refused(draft: DecisionDraft, problem: ClusterError) -> LMFineTuneStatus:
    """The status of a run whose Job was refused: by a quota, by admission, or as an invalid Job."""
    # A webhook or a policy of the cluster may answer 422 too; that is for the platform to fix, and the run waits.
    ours = problem.status == 422 and " is invalid: " in str(problem) and not admission.at_work(str(problem))
    ours = ours and not admission.changed_by_policies(str(problem))
    if ours and not draft.status.attempts:
        draft.end(Reason.INVALID_SPEC, f"The manifest does not make a valid Job: {problem}")
        return draft.status
    draft.status = change(draft.status, completion_time=None)
    draft.wait(*admission.explained(CANNOT_CREATE_JOB, str(problem)))
    return draft.status
