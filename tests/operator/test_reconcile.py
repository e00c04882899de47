"""What a look at a run leaves in the cluster: what was decided, also where the API server refuses a part of it."""

import asyncio
import time
from typing import Any, cast

import pytest

from lmft_api.status import LMFineTuneStatus
from lmft_api.text.times import timestamp
from lmft_api.wire.progress import Metric, TrainerStatus
from lmft_api.wire.run_file import Stage
from lmft_operator.cluster.client import Cluster
from lmft_operator.cluster.errors import ClusterError, ConflictError, ForbiddenError, InvalidObjectError, NotFoundError
from lmft_operator.domain import shapes
from lmft_operator.domain.facts import Key
from lmft_operator.jobs.manifest import job_name
from lmft_operator.reconcile import REFUSED_SECONDS, Reconciler
from lmft_operator.settings import parse
from lmft_operator.status.progress import ProgressReport
from lmft_operator.watch.cache import Cache

KEY = Key("team-a", "eli5")
UID = "0123456789ab"
SPEC: dict[str, Any] = {
    "model": {"name": "gpt2"}, "dataset": {"name": "d"}, "output": {"uri": "s3://models"}, "preparation": "Inline",
}  # fmt: skip
QUOTA = 'jobs "eli5-2" is forbidden: {}: compute, requested: count/jobs.batch=1, used: {}'


class Api:
    """An API server with one run, its Job and its pod; it creates Jobs unless it is told to refuse them."""

    def __init__(self, **spec: Any) -> None:
        self.version = 10
        self.run = self._named({"spec": SPEC | spec, "status": {}}, "eli5", UID)
        self.refusal: ClusterError | None = None
        self.without_owners = False
        """A policy removes the owners of each Job, and the garbage collector is slow to remove what is deleted."""
        self.stuck: dict[str, dict[str, Any]] = {}
        self.restored = False
        """The database was restored to a time before the run, and the watch does not show it."""
        self.suspected = 0
        self.nodes: list[dict[str, Any]] = []
        self.nodes_listed = 0
        self.created: list[str] = []
        self.jobs: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.events: list[str] = []
        self.cache = Cache()
        self.ahead = 0.0
        self.start()

    def start(self) -> None:
        """An operator starts that has seen nothing yet."""
        self.reconciler = Reconciler(
            cast(Cluster, self),
            self.cache,
            parse("{progress: {url: 'https://progress'}, policy: {maxNodes: 2}}"),
            progress_ca=lambda: None,
            enqueue=lambda key: None,
            suspicious=self._suspect,
            clock=lambda: time.time() + self.ahead,
        )

    def _suspect(self) -> None:
        self.suspected += 1

    async def look(self) -> LMFineTuneStatus:
        self.cache.run_seen(self.run)
        await self.reconciler(KEY)
        await asyncio.sleep(0)
        return LMFineTuneStatus.parse(self.run["status"])

    async def runs(self) -> None:
        """The first attempt's pod runs, and the status says so."""
        await self.look()
        self.pod(state={"running": {"startedAt": timestamp(time.time() - 60)}})
        await self.look()

    def pod(self, phase: str = "Running", state: dict[str, Any] | None = None, **status: Any) -> None:
        labels = {"lmfinetune.dev/run-uid": UID, "lmfinetune.dev/attempt": "1"}
        owner = {"kind": "Job", "name": "eli5-1", "uid": "job-1", "controller": True}
        body = {"status": {"phase": phase, "containerStatuses": [{"name": "job", "state": state or {}}]} | status}
        self.cache.pod_seen(self._named(body, "eli5-1-x", "pod-1", labels=labels, ownerReferences=[owner]))

    def ends(self, code: int, **status: Any) -> None:
        times = {"startedAt": timestamp(time.time() - 60), "finishedAt": timestamp(time.time())}
        phase = "Failed" if code else "Succeeded"
        self.pod(phase, {"terminated": {"exitCode": code, "message": status.pop("said", ""), **times}}, **status)

    def reports(self, **metrics: object) -> None:
        sent = [Metric(name=name, value=str(value)) for name, value in metrics.items()]
        self.reconciler.reported(KEY, ProgressReport(UID, 1, time.time(), TrainerStatus(metrics=sent)))

    # ---- what the operator asks of it

    async def create_job(self, job: dict[str, Any]) -> dict[str, Any]:
        if self.refusal is not None:
            raise self.refusal
        name = job["metadata"]["name"]
        if name in self.stuck:
            raise ConflictError(409, "exists")
        self.created.append(name)
        if not self.without_owners:
            self.jobs.append(self._named(job, name, f"job-{len(self.created)}"))
            return self.jobs[-1]
        metadata = {field: value for field, value in job["metadata"].items() if field != "ownerReferences"}
        self.stuck[name] = self._named(job | {"metadata": metadata}, name, f"job-{len(self.created)}")
        return self.stuck[name]

    async def get_job(self, namespace: str, name: str) -> dict[str, Any]:
        return self.stuck.get(name) or self._named({"spec": {}, "status": {}}, name, f"foreign-{name}")

    async def has_run(self, key: Key, uid: str) -> bool:
        return not self.restored

    async def delete_run(self, key: Key, uid: str) -> None:
        self.deleted.append(key.name)

    async def delete_job(self, namespace: str, name: str, uid: str) -> None:
        self.deleted.append(name)
        if name in self.stuck:
            self.stuck[name]["metadata"]["deletionTimestamp"] = timestamp(time.time())

    async def patch_status(self, key: Key, version: str, patch: dict[str, Any]) -> dict[str, Any]:
        if self.restored:
            raise NotFoundError(404, "not found")
        merged = _merge(self.run["status"], patch)
        self.run = self._named({"spec": self.run["spec"], "status": merged}, "eli5", UID)
        return self.run

    async def pages(self, kind: str, namespace: str | None, limit: int) -> Any:
        assert (kind, namespace) == ("nodes", None)
        self.nodes_listed += 1
        yield [shapes.node(node) for node in self.nodes], self.version

    async def occupants(self, node: str) -> Any:
        yield []

    async def post_event(self, namespace: str, event: dict[str, Any]) -> None:
        self.events.append(event["message"])

    def _named(self, body: dict[str, Any], name: str, uid: str, **metadata: Any) -> dict[str, Any]:
        self.version += 1
        identity = {"namespace": "team-a", "name": name, "uid": uid, "resourceVersion": str(self.version)}
        return body | {"metadata": body.get("metadata", {}) | metadata | identity}


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """RFC 7386, as the API server does it."""
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key) or {}, value) if isinstance(value, dict) else value
    return merged


EVICTED = [{"type": "DisruptionTarget", "status": "True", "message": "evicted"}]


@pytest.mark.parametrize("words", ["exceeded quota", "failed quota"])
async def test_the_end_of_an_attempt_is_written_down_though_the_next_job_is_refused(words: str) -> None:
    api = Api()
    await api.runs()
    # when the pod is evicted, and a quota has no place for the next Job
    api.refusal = ForbiddenError(403, QUOTA.format(words, 1))
    api.ends(75, conditions=EVICTED)
    status = await api.look()
    [first] = status.attempts or []
    assert (first.reason, first.end_time is not None) == ("Interrupted", True)
    assert (status.interruptions, status.usage and status.usage.seconds) == (1, 60)
    assert (status.phase, status.reason) == ("Pending", "QuotaExceeded")
    assert [event for event in api.events if words in event]
    # when it is refused again in other words, the end is no news any more
    api.refusal = ForbiddenError(403, QUOTA.format(words, 2))
    await api.look()
    assert sum("evicted" in event for event in api.events) == 1
    # when there is a place again
    api.refusal = None
    status = await api.look()
    assert [attempt.number for attempt in status.attempts or []] == [1, 2]
    assert (status.interruptions, status.reason) == (1, "Pending")


async def test_silence_counts_from_the_first_look_and_not_from_the_start_of_the_process() -> None:
    # given a run whose pod has reported lately
    api, hour = Api(), 3600.0
    await api.runs()
    await api.patch_status(KEY, "", {"progress": {"percent": 4, "lastUpdateTime": timestamp(time.time() - 30)}})
    # and another operator, whose clock is behind when it starts, or which is then on standby for long
    api.ahead = -hour
    api.start()
    # when it looks at the run, and nobody has listened for an hour
    api.ahead = hour
    status = await api.look()
    # then the pod has the usual time to report, and no more
    assert status.reason == "Training"
    api.ahead = 2 * hour
    assert (await api.look()).reason == "Stalled"


async def test_a_first_job_that_is_refused_settles_nothing() -> None:
    api = Api()
    api.refusal = ForbiddenError(403, QUOTA.format("exceeded quota", 1))
    status = await api.look()
    assert (status.reason, status.attempts, status.provenance) == ("QuotaExceeded", None, None)
    assert (status.model, status.completion_time) == ("gpt2", None)


async def test_a_manifest_that_makes_no_valid_job_has_failed_once() -> None:
    api = Api()
    api.refusal = InvalidObjectError(422, 'Job.batch "eli5-1" is invalid: spec: wrong')
    status = await api.look()
    assert (status.phase, status.reason, status.attempts) == ("Failed", "InvalidSpec", None)
    version = api.version
    await api.look()
    assert api.version == version, "nothing new to write"
    api.refusal = None
    status = await api.look()
    assert (status.phase, status.completion_time, api.created) == ("Pending", None, ["eli5-1"])


@pytest.mark.parametrize(
    "words",
    [
        'spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy',
        'spec.managedBy: Invalid value: "x": must be a domain-prefixed path',
        "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
    ],
)
async def test_a_job_that_a_policy_has_made_invalid_is_not_the_manifests_fault(words: str) -> None:
    api = Api()
    api.refusal = InvalidObjectError(422, f'Job.batch "eli5-1" is invalid: {words}')
    status = await api.look()
    assert (status.phase, status.reason, status.attempts) == ("Pending", "AdmissionFailed", None)
    assert status.succeeded is not None
    assert words in status.succeeded.message


async def test_when_strangers_have_both_names_of_its_job_a_run_says_so_and_waits() -> None:
    api = Api()
    api.refusal = ConflictError(409, "exists")
    status = await api.look()
    assert (status.reason, status.attempts) == ("Pending", None)
    message = status.succeeded.message if status.succeeded else ""
    assert message.startswith("The Job cannot be created: Jobs eli5-1 and eli5-")
    assert "delete one of them" in message
    assert await api.reconciler(KEY) == REFUSED_SECONDS


async def test_a_withdrawn_job_that_is_slow_to_go_is_not_taken_for_a_strangers() -> None:
    # given a policy that makes each Job useless, and Jobs that stay a while after they were deleted
    api = Api()
    api.without_owners = True
    for _ in range(3):
        # when the run is tried again and again
        status = await api.look()
        # then the cause stays in its status, and no second name is used up
        assert (status.reason, status.attempts) == ("AdmissionFailed", None)
        message = status.succeeded.message if status.succeeded else ""
        assert "metadata.ownerReferences" in message
    assert (api.created, api.deleted) == (["eli5-1"], ["eli5-1"])


@pytest.mark.parametrize(
    ("going", "words"),
    [
        (2, "Jobs eli5-1 and {other} are being deleted; the Job is created once one is gone."),
        (1, "Job eli5-1 is being deleted; the Job is created once it is gone."),
    ],
)
async def test_after_a_restart_jobs_that_are_being_deleted_need_only_waiting(going: int, words: str) -> None:
    # given Jobs of both names, withdrawn by an operator that was started again, or the second a stranger's
    api = Api()
    api.without_owners = True
    await api.look()
    first = api.stuck["eli5-1"]
    other = job_name("eli5", 1, Stage.ALL, UID)
    api.stuck[other] = api._named(first, other, "job-2") if going == 2 else api._named({"spec": {}}, other, "stranger")
    api.cache = Cache()
    api.start()
    # when the run is looked at
    status = await api.look()
    # then nobody is told to delete anything
    assert (status.reason, status.attempts) == ("Pending", None)
    assert status.succeeded is not None
    assert status.succeeded.message == "The Job cannot be created: " + words.format(other=other)
    # and once one of them is gone, the Job is created
    del api.stuck["eli5-1"]
    api.without_owners = False
    status = await api.look()
    assert status.attempts is not None
    assert api.created == ["eli5-1", "eli5-1"]


async def test_a_run_that_makes_no_valid_job_is_deleted_when_its_time_is_over() -> None:
    api = Api(ttlSecondsAfterFinished=30)
    api.refusal = InvalidObjectError(422, 'Job.batch "eli5-1" is invalid: spec.template')
    await api.look()
    await api.patch_status(KEY, "", {"completionTime": timestamp(time.time() - 31)})
    await api.look()
    assert api.deleted == ["eli5"]


async def test_what_a_pod_reported_last_is_not_lost_when_it_fails() -> None:
    api = Api()
    await api.runs()
    api.reports(current_step=40, total_steps=90, checkpoint_step=40)
    await api.look()
    # when it reports another checkpoint, which is not written at once, and then ends for good
    api.reports(current_step=60, total_steps=90, checkpoint_step=60, resumed_from_step=0)
    api.ends(5, said='{"reason":"Diverged","message":"the loss is NaN"}')
    status = await api.look()
    assert (status.phase, status.reason) == ("Failed", "Diverged")
    assert status.checkpoint is not None
    assert status.checkpoint.uri == "s3://models/team-a/runs/eli5-01234567/checkpoints/attempt-0001/step-00000060"
    [attempt] = status.attempts or []
    assert attempt.checkpoint_step == 60


async def test_a_run_on_fewer_nodes_grows_at_a_checkpoint_once_a_node_has_room() -> None:
    # given a run that wants two nodes and has trained on one for an hour
    began = timestamp(time.time() - 3600)
    api = Api(resources={"nodes": 2, "elastic": {}, "cpu": "1", "memory": "2Gi"})
    squeezed = {"number": 2, "job": "eli5-2", "stage": "Train", "nodes": 2, "placedNodes": 1, "endTime": began}
    open_now = {"number": 3, "job": "eli5-3", "stage": "Train", "nodes": 1, "startTime": began}
    api.run["status"] = {"phase": "Training", "attempts": [squeezed | {"reason": "Interrupted"}, open_now]}
    api.cache.run_seen(api.run)
    labels = {"lmfinetune.dev/run-uid": UID, "lmfinetune.dev/attempt": "3", "lmfinetune.dev/stage": "Train"}
    run = {"kind": "LMFineTune", "uid": UID, "controller": True}
    api.cache.job_seen(api._named({"spec": {}}, "eli5-3", "job-3", labels=labels, ownerReferences=[run]))
    job = {"kind": "Job", "name": "eli5-3", "uid": "job-3", "controller": True}
    running = [{"name": "job", "state": {"running": {"startedAt": began}}}]
    pod = {"status": {"phase": "Running", "containerStatuses": running}}
    api.cache.pod_seen(api._named(pod, "eli5-3-x", "pod-3", labels=labels, ownerReferences=[job]))
    await api.look()
    assert (api.deleted, api.nodes_listed) == ([], 0)

    # when it has just saved a checkpoint, and no node has room
    saved = {"step": 7, "uri": "s3://models/c", "time": timestamp(time.time())}
    api.run = api._named(api.run | {"status": api.run["status"] | {"checkpoint": saved}}, "eli5", UID)
    await api.look()
    assert (api.deleted, api.nodes_listed) == ([], 1)

    # then it goes on; and once one has, it is stopped for two
    free = {"cpu": "8", "memory": "64Gi", "ephemeral-storage": "1Ti", "pods": "110"}
    ready = [{"type": "Ready", "status": "True"}]
    api.nodes = [{"metadata": {"name": "n", "uid": "n"}, "status": {"allocatable": free, "conditions": ready}}]
    api.start()
    status = await api.look()
    assert api.deleted == ["eli5-3"]
    assert (status.attempts or [])[-1].placed_nodes == 2
    assert "There is room for 2 nodes again" in str(status.succeeded)


async def test_a_spec_that_a_newer_operator_cannot_read_does_not_stop_the_attempt_under_way() -> None:
    api = Api()
    await api.runs()
    # when the operator is a stricter one from now on
    api.run["spec"] = SPEC | {"training": {"optimizer": "NoLongerKnown", "seed": -7}, "model": {"name": "a b c"}}
    api.run = api._named(api.run, "eli5", UID)
    status = await api.look()
    assert (status.reason, status.model, api.deleted) == ("Training", "gpt2", [])
    # when the attempt is interrupted, none follows
    api.ends(75, conditions=EVICTED)
    status = await api.look()
    [first] = status.attempts or []
    assert (first.reason, status.phase, status.reason) == ("Interrupted", "Failed", "InvalidSpec")
    assert "spec.training.optimizer" in (status.succeeded.message if status.succeeded else "")
    assert api.created == ["eli5-1"]


async def test_a_run_that_is_done_stays_so_when_a_newer_operator_cannot_read_its_spec() -> None:
    api = Api(ttlSecondsAfterFinished=3600)
    await api.runs()
    api.ends(0, said='{"reason":"Completed","message":"done"}')
    assert (await api.look()).phase == "Succeeded"
    api.run["spec"] = SPEC | {"training": {"optimizer": "NoLongerKnown"}}
    api.run = api._named(api.run, "eli5", UID)
    status = await api.look()
    assert (status.phase, status.reason) == ("Succeeded", "Completed")


async def test_a_run_that_a_restored_database_does_not_have_gets_no_job_after_job() -> None:
    # given a run in training, and a database from before it: its Jobs are collected as soon as they are made
    api = Api()
    await api.runs()
    api.restored = True
    # when each of them is seen to go
    for _ in range(5):
        api.cache.job_gone(api.jobs[-1])
        await api.reconciler(KEY)
        api.cache.run_seen(api.run)  # a watch that was late
    # then one more was made at most, and full lists were asked for
    assert len(api.created) <= 2
    assert api.suspected >= 1
    assert KEY not in api.cache.runs
