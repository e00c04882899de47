"""The scheduler's sentence in terms of the manifest: what is waited for, and what would mend it."""

import pytest

from lmft_api.spec.pod import Toleration
from lmft_operator.decide.scheduling import explain
from lmft_operator.domain.plan import PodRequirements

GPU = PodRequirements({"nvidia.com/gpu": "1", "memory": "64Gi"})
SPOT = (Toleration.parse({"key": "spot", "operator": "Exists"}),)
NO_PREEMPTION = " preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."

SENTENCES = [
    (
        "0/3 nodes are available: 1 node(s) had untolerated taint {spot: true}, 2 Insufficient nvidia.com/gpu."
        + NO_PREEMPTION,
        GPU,
        "None of 3 nodes can take the pod: 1 tainted spot=true, 2 without 1 of nvidia.com/gpu free. No toleration in "
        "the manifest; add one for spot to spec.podTemplate.tolerations if the run may go there. Wait until a "
        "nvidia.com/gpu is free; a node that has any says so in its status.allocatable.",
    ),
    (
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient memory. no new claims to "
        "deallocate,"
        + NO_PREEMPTION,
        PodRequirements({"memory": "64Gi"}, tolerations=SPOT),
        "None of 3 nodes can take the pod: 1 tainted, 2 without 64Gi of memory free. The manifest tolerates spot only; "
        "add one to spec.podTemplate.tolerations if the run may go there. Lower spec.resources.memory, or wait until "
        "something else ends.",
    ),
    (
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector." + NO_PREEMPTION,
        PodRequirements(selector={"disk": "fast"}),
        "The one node cannot take the pod: 1 without the label disk=fast. Fix spec.podTemplate.nodeSelector, or label "
        "a node.",
    ),
    (
        "0/2 nodes are available: 1 Too many pods, 1 node(s) were unschedulable.",
        PodRequirements(),
        "None of 2 nodes can take the pod: 1 at the maximum number of pods, 1 marked unschedulable " "(cordoned).",
    ),
    (
        '0/1 nodes are available: persistentvolumeclaim "lmft-corpus" not found. preemption: 0/1 nodes are available.',
        PodRequirements(),
        '0/1 nodes are available: persistentvolumeclaim "lmft-corpus" not found. Create the claim "lmft-corpus", or '
        "fix spec.podTemplate.volumes.",
    ),
    (
        "0/2 nodes are available: 2 node(s) had volume node affinity conflict.",
        PodRequirements(),
        "None of 2 nodes can take the pod: 2 node(s) had volume node affinity conflict.",
    ),
    ("no nodes available to schedule pods", PodRequirements(), "no nodes available to schedule pods."),
]  # fmt: skip


@pytest.mark.parametrize(("message", "requirements", "said"), SENTENCES)
def test_an_unschedulable_pod_says_what_it_waits_for_and_what_would_mend_it(message, requirements, said):
    assert explain(message, requirements) == said


def test_what_the_pod_asks_of_a_node_comes_from_manifest_and_platform(World):
    world = World(resources={"gpusPerNode": 1}, preparation="Inline", podTemplate={"nodeSelector": {"disk": "fast"}})
    world.step()
    world.pod(unschedulable="0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) didn't match Pod's node "
              "affinity/selector.")  # fmt: skip
    world.step()
    assert world.reason == "Unschedulable"
    assert "1 without 1 of nvidia.com/gpu free, 1 without the label disk=fast." in world.message
    assert world.message.endswith("#unschedulable")
