"""Policies of the cluster that change the operator's Jobs beyond use: named, withdrawn, and nobody else is hurt."""

from collections.abc import Callable

from cluster.eventually import eventually
from cluster.operator.plane import JOBS, Api, Operator, Run
from cluster.operator.test_admission import ADMISSION, events
from support.results import DONE

Make = Callable[..., Run]
LABEL = "/metadata/labels/lmfinetune.dev~1run-uid"
USELESS = {
    "labels": (f'[JSONPatch{{op: "remove", path: "{LABEL}"}}]', "metadata.labels[lmfinetune.dev/run-uid]"),
    "owners": ('[JSONPatch{op: "remove", path: "/metadata/ownerReferences"}]', "metadata.ownerReferences"),
    "no pod": ('[JSONPatch{op: "replace", path: "/spec/parallelism", value: 0}]', "parallelism 0 rather than 1"),
}


def change_jobs(api: Api, namespace: str, patches: str) -> None:
    """Have admission change every Job of a namespace."""
    jobs = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    spec = {
        "matchConstraints": {"resourceRules": [jobs], "namespaceSelector": here},
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patches}}],
    }
    for kind, body in (("policies", spec), ("policybindings", {"policyName": namespace})):
        path = f"{ADMISSION}/mutatingadmission{kind}"
        api.call("POST", path, {"metadata": {"name": namespace}, "spec": body})
    template = {"restartPolicy": "Never", "containers": [{"name": "job", "image": "i"}]}
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "a"}
    metadata = {"name": "probe", "labels": {"lmfinetune.dev/run-uid": "a"}, "ownerReferences": [owner]}
    probe = {"metadata": metadata, "spec": {"parallelism": 1, "template": {"spec": template}}}

    def at_work() -> bool:
        made = api.call("POST", f"{JOBS.format(namespace)}?dryRun=All", probe)
        kept = made["metadata"].get("labels", {}).get("lmfinetune.dev/run-uid"), made["metadata"].get("ownerReferences")
        return kept[0] is None or kept[1] is None or made["spec"]["parallelism"] != 1

    eventually(at_work, "a policy at work")


def test_jobs_changed_beyond_use_are_withdrawn_and_the_operator_lives_on(
    api: Api, new_run: Make, operator: Operator
) -> None:
    # given namespaces whose policies make a Job useless, each in its way
    runs = {}
    for kind, (patches, _) in USELESS.items():
        namespace = api.namespace()
        change_jobs(api, namespace, patches)
        runs[kind] = new_run(namespace)
    for kind, (_, words) in USELESS.items():
        # then each is told what was changed, and who can do something about it
        runs[kind].wait("AdmissionFailed", 20)
        message = runs[kind].condition()["message"]
        assert words in message
        assert "mutating webhooks and policies not to change that" in message
        assert "attempts" not in runs[kind].status()
        eventually(lambda run=runs[kind]: "AdmissionFailed" in dict(events(run)), "an Event")
    # and nothing of it is taken for a watch that is dead, or for an attempt that ended
    eventually(lambda: "lmft_watch_unseen 0.0" in operator.metrics(), "no write that never shows")
    assert all("Interrupted" not in dict(events(run)) for run in runs.values())

    # when a policy is gone, then its run goes on, and with its first attempt
    api.call("DELETE", f"{ADMISSION}/mutatingadmissionpolicybindings/{runs['labels'].namespace}")
    eventually(lambda: runs["labels"].status().get("attempts"), "an attempt", 60)
    number = runs["labels"].status()["attempts"][-1]["number"]
    runs["labels"].ends(number, said=DONE)
    runs["labels"].wait("Completed")
