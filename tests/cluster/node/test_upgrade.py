"""The release itself: its own test, an upgrade under a run that trains, and a result that nobody was there to read."""

from cluster.eventually import eventually
from cluster.node.node import Node, Team
from cluster.node.release import install
from cluster.node.training import Folder, assert_same, reasons, small, texts, toy

OPERATOR = "deploy/lmfinetune"


def test_helm_test_passes(release: Node) -> None:
    release.run("helm", "test", "lmfinetune", "-n", "lmft-system", "--timeout", "2m")


def test_a_run_that_trains_outlives_an_upgrade_of_the_chart(release: Node, trainers: Team, reference, s3) -> None:
    # given a run that trains
    run = trainers.apply("upgraded", toy())
    Folder(s3, run).checkpoint()
    [before] = run.pods()
    operator = operators(release)

    # when the chart is upgraded, so that the operator is another one
    install(release, podAnnotations={"example.com/upgraded": run.team.namespace})

    # then it goes on in the same pod, and its result arrives
    assert operator.isdisjoint(operators(release))
    run.until("Completed", seconds=240)
    [after] = run.pods()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert reasons(run) == ["Completed"]
    assert_same(run, reference, s3)


def test_a_result_lost_with_its_pod_is_fetched_by_one_more_attempt(release: Node, team: Team, s3) -> None:
    # given a run that ends, and loses its pod, while there is no operator
    run = team.apply("unread", small(texts(s3, team)))
    run.running_pod()
    try:
        scale(release, 0)
        eventually(lambda: run.jobs()[0]["status"].get("succeeded"), "the Job is complete", 120)
        team.kubectl("delete", "pod", run.pods()[0]["metadata"]["name"])
    finally:
        scale(release, 1)

    # when there is one again, then one more attempt answers with what is in storage
    run.until("Completed", seconds=120)
    assert run.status["results"]["perplexity"] == f"{Folder(s3, run).report()['results']['perplexity']:.2f}"
    assert len(reasons(run)) == 2
    assert Folder(s3, run).report()["attempt"] == 1


def scale(node: Node, replicas: int) -> None:
    node.kubectl("-n", "lmft-system", "scale", OPERATOR, f"--replicas={replicas}")
    node.kubectl("-n", "lmft-system", "rollout", "status", OPERATOR, "--timeout=60s")
    eventually(lambda: len(operators(node)) == replicas, "the operators are as many as asked for", 60)


def operators(node: Node) -> set[str]:
    """UIDs of the operator's pods."""
    found = node.read("-n", "lmft-system", "pods", "-l", "app.kubernetes.io/name=lmfinetune").get("items", [])
    return {pod["metadata"]["uid"] for pod in found}
