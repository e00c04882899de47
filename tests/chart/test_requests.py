"""A first run fits a small cluster: what a scheduler would add up."""

from typing import Any

import yaml
from chart.helm import ROOT, render

from lmft_api.manifest.validation import parse_spec
from lmft_api.schema.rules import amount
from lmft_api.wire.run_file import Stage
from lmft_operator.domain.facts import Key, RunFacts
from lmft_operator.domain.plan import Plan
from lmft_operator.jobs import manifest
from lmft_operator.settings import parse

# What a node of kind requests for itself: API server, etcd, controllers, scheduler, two CoreDNS, network.
SYSTEM = {"cpu": "950m", "memory": "290Mi"}
# Two CPUs and 4 GiB, of which the kernel keeps some and kubelet 100 MiB.
ALLOCATABLE = {"cpu": "2", "memory": "3700Mi"}


def test_the_quickstart_fits_a_cluster_of_two_cpus_and_4_gib_beside_the_operator() -> None:
    rendered = render("--set", "defaults.output.uri=s3://models")
    settings = parse(rendered.config)
    spec = parse_spec(yaml.safe_load((ROOT / "examples/quickstart.yaml").read_text())["spec"])
    run = RunFacts(Key("team-a", "quickstart"), "uid", "1", 1, 0.0, False, "", "")
    rules = settings.policy.for_namespace("team-a")
    plan = Plan("quickstart-1", 1, Stage.ALL, 0)
    job = manifest.build(plan, run, manifest.with_defaults(spec, settings), settings, rules, None)

    pods: list[dict[str, Any]] = [rendered.pod["spec"], job["spec"]["template"]["spec"]]
    asked = [container["resources"]["requests"] for pod in pods for container in pod["containers"]]

    for resource, room in ALLOCATABLE.items():
        assert sum(amount(requests[resource]) for requests in [SYSTEM, *asked]) <= amount(room), resource
    assert "limits" not in job["spec"]["template"]["spec"]["containers"][0]["resources"]
