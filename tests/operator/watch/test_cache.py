"""What the operator keeps of the cluster: nothing older than it knows, and nothing that is not the run's own."""

from copy import deepcopy

import pytest

from lmft_operator.domain.facts import Key
from lmft_operator.watch.cache import Cache


def body(version: int, uid: str = "u1", **metadata: object) -> dict:
    return {"metadata": {"namespace": "a", "name": "r", "uid": uid, "resourceVersion": str(version), **metadata}}


def job(version: int, uid: str = "j1") -> dict:
    found = body(version, uid)
    found["metadata"] |= {
        "name": "r-1",
        "labels": {"lmfinetune.dev/run-uid": "u1", "lmfinetune.dev/attempt": "1"},
        "ownerReferences": [{"kind": "LMFineTune", "name": "r", "uid": "u1", "controller": True}],
    }
    return found


def pod(version: int, uid: str = "p1") -> dict:
    found = job(version, uid)
    found["metadata"]["ownerReferences"] = [
        {"kind": "Job", "name": found["metadata"]["name"], "uid": "j1", "controller": True}
    ]
    return found


def test_the_cache_never_goes_back_to_an_older_version():
    cache = Cache()
    assert cache.run_seen(body(5)) == ("a", "r")
    cache.run_seen(body(3, generation=9))
    assert cache.runs["a", "r"].version == "5"


def test_an_echo_of_ones_own_write_is_no_news():
    cache = Cache()
    cache.run_seen(body(5))
    assert cache.run_seen(body(6)) is None
    assert cache.runs["a", "r"].version == "6"


def test_a_write_is_expected_until_the_watch_shows_it_or_a_newer_one():
    cache = Cache()
    cache.run_seen(body(5))
    cache.run_written(body(7))
    cache.run_seen(body(6))
    assert "u1" in cache.unseen
    cache.run_seen(body(8))
    assert cache.unseen == {}


def test_a_watch_that_is_faster_than_the_answer_leaves_nothing_to_wait_for():
    cache = Cache()
    cache.run_seen(body(1))
    cache.job_seen(job(7))
    cache.job_written(job(7))
    cache.run_seen(body(8))
    cache.run_written(body(8))
    assert cache.unseen == {}


def test_a_deleted_object_does_not_come_back_with_an_older_list():
    cache = Cache()
    cache.run_seen(body(1))
    cache.job_seen(job(2))
    cache.job_gone(job(3))
    cache.job_seen(job(2))
    assert cache.observe(("a", "r"), 0.0).jobs == ()


def test_a_list_without_an_object_removes_it_unless_that_is_newer():
    cache = Cache()
    cache.run_seen(body(1))
    cache.job_seen(job(5))
    assert cache.retain("jobs", None, [], 4) == set()
    assert cache.retain("jobs", "elsewhere", [], 9) == set()
    assert cache.retain("jobs", None, [], 6) == {("a", "r")}
    assert cache.observe(("a", "r"), 0.0).jobs == ()


def test_a_pod_that_vanished_leaves_its_last_facts_until_its_attempt_is_written_down():
    cache = Cache()
    cache.run_seen(body(1))
    cache.job_seen(job(1))
    cache.pod_seen(pod(2))
    cache.pod_gone(pod(3))
    assert [pod.gone for pod in cache.observe(("a", "r"), 0.0).pods] == [True]
    cache.settle("u1", [1])
    assert cache.observe(("a", "r"), 0.0).pods == ()


def test_a_run_made_anew_under_the_same_name_starts_without_the_old_ones_jobs():
    cache = Cache()
    cache.run_seen(body(1))
    cache.job_seen(job(2))
    cache.run_seen(body(9, "u2"))
    assert cache.observe(("a", "r"), 0.0).jobs == ()


def warning(message: str, uid: str, *, namespace: str = "a", reason: str = "FailedCreate", minute: int = 0) -> dict:
    return {
        "metadata": {"namespace": namespace}, "involvedObject": {"uid": uid}, "type": "Warning", "reason": reason,
        "message": message, "lastTimestamp": f"2027-01-15T08:{minute:02}:00Z",
    }  # fmt: skip


def test_warnings_are_kept_only_about_children_of_ours():
    cache = Cache()
    cache.run_seen(body(1))
    cache.job_seen(job(2))
    assert cache.warned(warning("quota", "stranger")) is None
    assert cache.warned(warning("quota", "j1")) == ("a", "r")
    assert cache.observe(("a", "r"), 0.0).warnings["j1"].message == "quota"


def test_a_warning_that_says_nothing_of_the_wait_does_not_take_the_place_of_one_that_does():
    cache = Cache()
    cache.run_seen(body(1))
    cache.job_seen(job(2))
    cache.warned(warning("quota", "j1"))
    assert cache.warned(warning("Nameserver limits were exceeded", "j1", reason="DNSConfigForming", minute=5)) is None
    cache.prune()
    assert cache.observe(("a", "r"), 0.0).warnings["j1"].message == "quota"


@pytest.mark.parametrize(("namespace", "known"), [("a", ["j1"]), ("b", [])])
def test_a_warning_that_comes_before_its_object_is_kept_for_it(namespace, known):
    cache = Cache()
    cache.warned(warning("quota", "j1", namespace=namespace))
    for stranger in range(999):
        cache.warned(warning("quota", f"stranger-{stranger}"))
    cache.run_seen(body(1))
    cache.job_seen(job(2))
    assert list(cache.observe(("a", "r"), 0.0).warnings) == known
    for stranger in range(5000):
        cache.warned(warning("quota", f"stranger-{stranger}"))
    assert len(cache._early) == 1000


WORKLOAD = "job-r-1-2fd95"
"""What Kueue 0.17 calls the Workload of Job r-1 with the UID j1."""


def of_workload(message: str, *, name: str = WORKLOAD, version: str = "kueue.x-k8s.io/v1beta2", **more: str) -> dict:
    found = warning(message, "w1", **{"reason": "Pending"} | more)
    found["involvedObject"] |= {"kind": "Workload", "apiVersion": version, "name": name}
    return found


@pytest.mark.parametrize("early", [False, True])
def test_why_the_queue_holds_a_job_is_said_of_its_workload(early):
    cache = Cache()
    if early:
        cache.warned(of_workload("1 more needed"))
    cache.run_seen(body(1))
    cache.job_seen(job(2))
    assert early or cache.warned(of_workload("1 more needed")) == ("a", "r")
    assert [found.message for found in cache.observe(("a", "r"), 0.0).warnings.values()] == ["1 more needed"]
    cache.job_gone(job(3))
    assert cache.observe(("a", "r"), 0.0).warnings == {}
    assert cache._warnings == cache._child_of == {}


@pytest.mark.parametrize(
    "other",
    [
        {"name": "job-r-1-00000"},
        {"name": ""},
        {"version": "example.com/v1"},
        {"reason": "FailedCreate"},
        {"namespace": "b"},
    ],
)
def test_what_is_said_of_other_workloads_is_not_believed(other):
    cache = Cache()
    cache.run_seen(body(1))
    cache.job_seen(job(2))
    assert cache.warned(of_workload("1 more needed", **other)) is None
    assert cache.observe(("a", "r"), 0.0).warnings == {}


def changed(body: dict, **metadata: object) -> dict:
    found = deepcopy(body)
    found["metadata"] |= metadata
    return found


@pytest.mark.parametrize(
    "metadata",
    [
        {"namespace": "b"},
        {"ownerReferences": []},
        {"ownerReferences": [{"kind": "LMFineTune", "name": "r", "uid": "u1"}]},
        {"ownerReferences": [{"kind": "LMFineTune", "name": "r", "uid": "another", "controller": True}]},
        {"ownerReferences": [{"kind": "ConfigMap", "name": "r", "uid": "u1", "controller": True}]},
    ],
)
@pytest.mark.parametrize("first", ["the run", "the Job"])
def test_a_foreign_job_with_our_labels_is_not_the_runs(metadata, first):
    cache = Cache()
    if first == "the run":
        cache.run_seen(body(1))
    assert cache.job_seen(changed(job(2), **metadata)) is None
    cache.run_seen(body(3))
    assert cache.observe(("a", "r"), 0.0).jobs == ()


@pytest.mark.parametrize(
    "metadata",
    [
        {"namespace": "b"},
        {"ownerReferences": []},
        {"ownerReferences": [{"kind": "Job", "name": "r-1", "uid": "j1"}]},
        {"ownerReferences": [{"kind": "ConfigMap", "name": "r-1", "uid": "j1", "controller": True}]},
    ],
)
@pytest.mark.parametrize("first", ["the run", "the Pod"])
def test_a_foreign_pod_with_our_labels_is_not_the_runs(metadata, first):
    cache = Cache()
    if first == "the run":
        cache.run_seen(body(1))
        cache.job_seen(job(2))
    forged = changed(pod(3, "p2"), **metadata)
    assert cache.pod_seen(forged) is None
    cache.run_seen(body(4))
    cache.job_seen(job(5))
    assert cache.observe(("a", "r"), 0.0).pods == ()
    assert cache.pod_gone(forged) is None
    assert cache.observe(("a", "r"), 0.0).pods == ()


def test_a_pod_that_its_job_left_behind_is_followed_to_its_end():
    cache = Cache()
    cache.run_seen(body(1))
    cache.job_seen(job(2))
    cache.pod_seen(pod(3))
    cache.job_gone(job(4))
    ended = changed(pod(5), ownerReferences=[]) | {"status": {"phase": "Succeeded"}}
    assert cache.pod_seen(ended) == ("a", "r")
    assert [found.phase for found in cache.observe(("a", "r"), 0.0).pods] == ["Succeeded"]
    assert cache.pod_gone(changed(pod(6), ownerReferences=[])) == ("a", "r")
    assert [found.gone for found in cache.observe(("a", "r"), 0.0).pods] == [True]


@pytest.mark.parametrize("job_is_gone", [False, True])
@pytest.mark.parametrize("name", ["r-1", "another"])
def test_a_pod_of_somebody_elses_job_is_not_the_runs(name, job_is_gone):
    cache = Cache()
    cache.run_seen(body(1) | {"status": {"attempts": [{"number": 1, "job": "r-1"}]}})
    cache.job_seen(changed(job(2), name="r-1"))
    if job_is_gone:
        cache.job_gone(changed(job(3), name="r-1"))
    owner = {"kind": "Job", "name": name, "uid": "theirs", "controller": True}
    cache.pod_seen(changed(pod(4, "p2"), ownerReferences=[owner]))
    assert cache.observe(("a", "r"), 0.0).pods == ()


@pytest.mark.parametrize(("name", "pods"), [("r-1", ["p1"]), ("another", [])])
def test_the_pod_of_a_job_that_went_before_the_operator_came_is_known_by_the_jobs_name(name, pods):
    cache = Cache()
    cache.run_seen(body(1) | {"status": {"attempts": [{"number": 1, "job": "r-1"}]}})
    owner = {"kind": "Job", "name": name, "uid": "gone", "controller": True}
    cache.pod_seen(changed(pod(2), ownerReferences=[owner]))
    assert [found.uid for found in cache.observe(("a", "r"), 0.0).pods] == pods


def test_a_warning_from_another_namespace_is_not_believed():
    cache = Cache()
    cache.run_seen(body(1))
    cache.job_seen(job(2))
    event = warning("quota", "j1", namespace="b")
    assert cache.warned(event) is None
    assert cache.observe(("a", "r"), 0.0).warnings == {}


@pytest.mark.parametrize("label", ["9" * 30, "-1", "two", ""])
def test_an_attempt_that_is_no_sensible_number_counts_as_none(label):
    cache = Cache()
    cache.run_seen(body(1))
    cache.job_seen(changed(job(2), labels={"lmfinetune.dev/run-uid": "u1", "lmfinetune.dev/attempt": label}))
    assert [found.attempt for found in cache.observe(("a", "r"), 0.0).jobs] == [0]


SOURCES = [
    ({}, None),
    ({"results": {"modelURI": "s3://m/model"}, "checkpoint": {"step": 4, "uri": "s3://m/4"}}, "s3://m/model"),
    ({"results": {"perplexity": "9"}, "checkpoint": {"step": 4, "uri": "s3://m/4"}}, "s3://m/4"),
]


@pytest.mark.parametrize(("status", "uri"), SOURCES)
def test_a_run_offers_its_model_or_else_its_newest_checkpoint(status, uri):
    cache = Cache()
    cache.run_seen(body(1) | {"status": status})
    assert cache.source(Key("a", "next"), "r").uri == uri
    assert cache.source(Key("a", "next"), "another").exists is False
    assert cache.source(Key("b", "next"), "r").exists is False
    # when it changes, but not in what the other one waits for
    cache.run_seen(body(2) | {"status": status | {"startTime": "2026-11-01T10:00:00Z"}})
    assert cache.dependants(Key("a", "r")) == set()
    # when it is gone
    cache.run_gone(body(3))
    assert cache.dependants(Key("a", "r")) == {("a", "next")}
    assert cache.dependants(Key("a", "r")) == set(), "said once"


def held(cache: Cache) -> dict:
    """What the cache holds besides tombstones, which time alone takes away."""
    return {name: value for name, value in vars(cache).items() if value and name not in ("_tombstones", "_clock")}


ENDS = {
    "the run goes first": ["run_gone", "pod_seen", "job_seen", "pod_gone", "job_gone"],
    "the run goes last": ["pod_gone", "job_gone", "run_gone"],
    "its children change once more": ["run_gone", "job_seen", "pod_seen"],
    "its children go unseen": ["run_gone", "nothing is listed"],
    "it goes unseen": ["nothing is listed"],
    "the answer to a write is late": ["job_gone", "run_gone", "job_written", "run_written"],
}


@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
def test_nothing_stays_of_a_run_that_was_deleted(ends):
    cache = Cache()
    cache.run_seen(body(1))
    cache.job_seen(job(2))
    cache.pod_seen(pod(3))
    cache.warned({"metadata": {"namespace": "a"}, "type": "Warning", "involvedObject": {"uid": "p1"}})
    cache.source(Key("a", "r"), "base")
    makers = {"run": body, "job": job, "pod": pod}
    for version, end in enumerate(ends, 4):
        if end == "nothing is listed":
            for kind in ("lmfinetunes", "jobs", "pods"):
                cache.retain(kind, None, [], version)
        else:
            getattr(cache, end)(makers[end.split("_")[0]](version))
    cache.prune()
    assert held(cache) == {}


def test_children_of_a_run_that_is_long_forgotten_leave_with_the_next_list():
    cache = Cache()
    cache.job_seen(job(2))
    cache.pod_seen(pod(3))
    assert cache.retain("jobs", None, ["j1"], 4) | cache.retain("pods", None, ["p1"], 4) == set()
    assert set(held(cache)) == {"_jobs", "_pods", "_job_names", "_child_of"}
    assert cache.retain("jobs", None, [], 5) | cache.retain("pods", None, [], 5) == set()
    assert held(cache) == {}
