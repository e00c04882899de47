"""Whatever stands in a foreign object, no exception leaves its reader.

More of them with LMFT_FUZZ_EXAMPLES=30000, and --timeout 0, for that takes many minutes.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from attacks.members.objects import HOSTILE, event, job, peaceful, places, pod, put, run, taken_out
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmft_operator.cluster.reading import UnreadableError, read_event, read_object
from lmft_operator.domain import shapes
from lmft_operator.domain.facts import job_facts, pod_facts, run_facts
from lmft_operator.domain.room import node_facts, requested

NODE = {
    "metadata": {"name": "n", "uid": "u", "labels": {"pool": "a"}},
    "spec": {"unschedulable": False, "taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]},
    "status": {"allocatable": {"cpu": "8"}, "conditions": [{"type": "Ready", "status": "True"}]},
}
_ASKING = {"name": "c", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}}
OCCUPANT = {
    "metadata": {"name": "p", "uid": "u"},
    "spec": {"containers": [_ASKING], "initContainers": [_ASKING], "overhead": {"cpu": "1m"}},
}
EXAMPLES = int(os.environ.get("LMFT_FUZZ_EXAMPLES", "500"))
READERS: dict[str, tuple[Any, Callable[[Any], object]]] = {
    "run_facts": (run("team", "own", "run-1"), run_facts),
    "job_facts": (job("team", "own-1", "job-1", "run-1"), job_facts),
    "pod_facts": (pod("team", "own-1-x", "pod-1", "run-1", "own-1", "job-1"), pod_facts),
    "pod_facts of one that is gone": (pod("a", "b", "c", "d", "e", "f"), lambda body: pod_facts(body, gone_at=1.0)),
    "node_facts": (NODE, lambda body: node_facts(shapes.node(body))),
    "requested": (OCCUPANT, lambda body: requested(shapes.occupant(body))),
    "warned": (event("team", "job-1"), lambda body: peaceful().warned(body)),
}
_TEXTS = st.text(max_size=20) | st.sampled_from(["Failed", "True", "job", "2026-11-01T10:00:00Z", "LMFineTune", "Job"])
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS
VALUES = st.sampled_from([value for what, value in HOSTILE.items() if "mega" not in what and "100,000" not in what])
VALUES |= st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4), max_leaves=12
)


@st.composite
def mutated(draw: st.DrawFn, body: Any) -> Any:
    """A real object in which up to four places were changed or taken out, one after the other."""
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(list(places(body))[1:] or [()]))
        body = taken_out(body, path) if draw(st.integers(0, 4)) == 0 else put(body, path, draw(VALUES))
        if not isinstance(body, dict | list):
            break
    return body


@pytest.mark.parametrize("reader", READERS)
def test_no_exception_leaves_a_reader_of_foreign_objects(reader: str) -> None:
    body, read = READERS[reader]

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(mutated(body))
    def holds(changed: Any) -> None:
        read(changed)

    holds()


@settings(max_examples=EXAMPLES, deadline=None, database=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.integers(0, 400), st.integers(0, 40))
def test_no_other_exception_leaves_a_reader_of_bytes(data: bytes, at: int, length: int) -> None:
    whole = json.dumps({"type": "ADDED", "object": run("team", "own", "run-1")}).encode()
    broken = whole[:at] + data + whole[at + length :]
    event = read_event(broken.decode("utf-8", "replace"))
    assert isinstance(event["type"], str)
    with suppress(UnreadableError):
        read_object(broken)
