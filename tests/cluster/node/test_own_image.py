"""A user's own image: torchrun and transformers' Trainer as they are, which know nothing of LMFineTune."""

from cluster.eventually import eventually
from cluster.node.node import Json, Team


def test_a_plain_trainer_reports_by_the_callback_that_transformers_brings_along(team: Team) -> None:
    # given an image with a script that trains with a plain Trainer
    run = team.apply(
        "own",
        {
            "model": {"name": "own/model"},
            "dataset": {"builtin": "PythonDocs"},
            "podTemplate": {"image": team.node.images["trainer"]},
        },
    )

    # when it runs
    def live() -> Json | None:
        status = run.status
        known = status.get("progress", {}).get("step") and status.get("results", {}).get("perplexity")
        return status if known else None

    status = eventually(live, "progress and a perplexity", 120)

    # then the status moves with it, and its last word is the result
    progress = status["progress"]
    assert status.get("completionTime") is None
    assert (progress["totalSteps"], progress["display"]) == (180, f"{progress['percent']}%")
    assert 0 < progress["step"] < 180
    assert progress["eta"]
    assert float(progress["loss"]) > 0
    assert run.until("Completed", seconds=120)["message"] == "trained by a world of 1"
    assert float(run.status["results"]["perplexity"]) < 64
    assert run.status["progress"]["display"] == "100%"


def test_a_bare_torchrun_trains_on_several_nodes(team: Team) -> None:
    # given the same image, and an attempt of two pods
    run = team.apply(
        "own-pair",
        {
            "model": {"name": "own/model"},
            "dataset": {"builtin": "PythonDocs"},
            "podTemplate": {"image": team.node.images["trainer"]},
            "resources": {"nodes": 2},
            "preparation": "Inline",
        },
    )

    # then the processes that torchrun starts in them are one group
    assert run.until("Completed", seconds=240)["message"] == "trained by a world of 2"
    assert [(a["stage"], a["nodes"]) for a in run.status["attempts"]] == [("All", 2)]
    assert float(run.status["results"]["perplexity"]) < 64
