"""An operator with a list of namespaces, which come and go, and with the rights of the chart's Roles and no others."""

import contextlib
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart.rights import CLUSTER_RULES, NAMESPACED_RULES
from cluster.eventually import eventually
from cluster.operator.conftest import DEFINITIONS, SETTINGS, established
from cluster.operator.plane import JOBS, Api, Operator, Run
from cluster.ports import free_port

from lmft_api.generate.crd import crd

FINALIZER = "example.com/audit"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ACCOUNT = {"kind": "ServiceAccount", "name": "limited", "namespace": "default"}
WATCH = {"resyncSeconds": 5, "serverTimeoutSeconds": 10}


def rules(rights: dict[tuple[str, str], set[str]]) -> list[dict[str, Any]]:
    return [
        {"apiGroups": [group], "resources": [what], "verbs": sorted(verbs)} for (group, what), verbs in rights.items()
    ]


def bind(api: Api, kind: str, base: str, rights: dict[tuple[str, str], set[str]]) -> None:
    """A role with these rights, or the one that is there, for the operator's account."""
    if rights:
        api.call("POST", f"{base}/{kind.lower()}s", {"metadata": {"name": "limited"}, "rules": rules(rights)})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "limited"}
    binding = {"metadata": {"name": "limited"}, "roleRef": role, "subjects": [ACCOUNT]}
    api.call("POST", f"{base}/{kind.lower()}bindings", binding)


def come(api: Api, name: str) -> None:
    """A namespace, and in it what helm upgrade would make."""

    api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    eventually(lambda: api.get(f"/api/v1/namespaces/{name}/serviceaccounts/default"), "the service account")
    bind(api, "Role", f"{RBAC}/namespaces/{name}", NAMESPACED_RULES)


@pytest.fixture(scope="module")
def limited(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kubeconfig of an account that may do nothing in any namespace yet."""
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    api.call("POST", accounts, {"metadata": {"name": "limited"}})
    bind(api, "ClusterRole", RBAC, CLUSTER_RULES)
    token = api.call("POST", f"{accounts}/limited/token", {"spec": {"expirationSeconds": 7200}})["status"]["token"]
    access = yaml.safe_load(api.kubeconfig.read_text())
    access["users"][0]["user"] = {"token": token}
    file = tmp_path_factory.mktemp("limited") / "access.yaml"
    file.write_text(yaml.safe_dump(access))
    return file


@pytest.fixture
def served(api: Api, limited: Path, tmp_path: Path) -> Iterator[Operator]:
    stamp = int(time.time())
    here, there = f"here-{stamp}", f"there-{stamp}"
    come(api, here)
    settings = SETTINGS | {"watch": WATCH | {"namespaces": [here, there]}}
    operator = Operator(tmp_path, limited, free_port(), settings).start()
    process = operator.process
    yield operator
    assert operator.process is process
    assert operator.stop() < 15
    assert "Traceback" not in operator.log.read_text()


def test_namespaces_come_and_go_and_the_others_are_served_all_the_while(api: Api, served: Operator) -> None:
    here, there = served.settings["watch"]["namespaces"]
    # Ready though one has never been there.
    assert "lmft_namespaces_unserved 1.0" in served.metrics()
    Run(api, here, "one").create().job()

    come(api, there)
    Run(api, there, "one").create().job()
    eventually(lambda: "lmft_namespaces_unserved 0.0" in served.metrics(), "a namespace that is served")

    # What a namespace's deletion takes away last: all that the operator sees of it (one with pods takes minutes here).
    api.call("DELETE", f"{RBAC}/namespaces/{there}/rolebindings/limited")
    eventually(lambda: "lmft_namespaces_unserved 1.0" in served.metrics(), "a namespace that is given up")
    eventually(lambda: f'lmft_runs{{namespace="{there}"' not in served.metrics(), "its runs no longer counted")
    time.sleep(2 * WATCH["serverTimeoutSeconds"])  # every watch there is refused by now
    assert served.alive()
    assert (served.ask("/healthz"), served.ask("/readyz")) == (200, 200)
    Run(api, here, "two").create().job()

    bind(api, "Role", f"{RBAC}/namespaces/{there}", {})
    Run(api, there, "two").create().job()


def test_a_namespace_that_sticks_in_terminating_holds_up_no_other(api: Api, served: Operator) -> None:
    here, there = served.settings["watch"]["namespaces"]
    come(api, there)
    run = Run(api, there, "one").create()
    old = run.job()["metadata"]["uid"]
    kept = f"/api/v1/namespaces/{there}/configmaps"
    api.call("POST", kept, {"metadata": {"name": "kept", "finalizers": [FINALIZER]}})
    api.patch(run.path, {"metadata": {"finalizers": [FINALIZER]}})

    # when it is deleted, and somebody's finalizers keep an object and the run in it
    api.call("DELETE", f"/api/v1/namespaces/{there}")
    eventually(lambda: api.items(JOBS.format(there)) == [], "no Job in it", 120)
    time.sleep(2 * WATCH["serverTimeoutSeconds"])

    # then the run's Job does not come back, the other namespace is served, and the operator is well
    assert api.items(JOBS.format(there)) == []
    assert api.get(f"/api/v1/namespaces/{there}")["status"]["phase"] == "Terminating"
    Run(api, here, "one").create().job()
    assert (served.ask("/healthz"), served.ask("/readyz")) == (200, 200)

    # and once they are gone, so is it; made again, it has none of the runs before
    api.patch(run.path, {"metadata": {"finalizers": None}})
    api.patch(f"{kept}/kept", {"metadata": {"finalizers": None}})
    eventually(lambda: api.get(f"/api/v1/namespaces/{there}") is None, "a namespace that is gone", 300)
    come(api, there)
    again = Run(api, there, "one").create()
    job = again.job()["metadata"]
    assert job["uid"] != old
    assert job["ownerReferences"][0]["uid"] == again.body()["metadata"]["uid"]
    eventually(lambda: again.status().get("attempts"), "an attempt")
    assert [attempt["number"] for attempt in again.status()["attempts"]] == [1]


def test_a_definition_that_is_made_again_is_served_again(api: Api, served: Operator) -> None:
    here, _ = served.settings["watch"]["namespaces"]
    Run(api, here, "one").create().job()
    name = crd()["metadata"]["name"]
    api.call("DELETE", f"{DEFINITIONS}/{name}")

    def gone() -> bool:
        if api.get(f"{DEFINITIONS}/{name}") is None:
            return True
        with contextlib.suppress(
            urllib.error.HTTPError
        ):  # an API server may forget a deletion until the object changes
            api.patch(f"{DEFINITIONS}/{name}", {"metadata": {"labels": {"touched": str(time.time_ns())}}})
        return False

    eventually(gone, "a definition that is gone")
    time.sleep(WATCH["serverTimeoutSeconds"] + 2)
    assert served.alive()
    api.call("POST", DEFINITIONS, crd())
    established(api)
    Run(api, here, "two").create().job()
