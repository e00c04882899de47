"""Progress reports: who may report for which run, what is refused, and what a report does to the status."""

from dataclasses import replace
from typing import Any

import pytest

from lmft_api.status import Attempt, CheckpointStatus, EvaluationResult, LMFineTuneStatus, Results
from lmft_api.wire.progress import Metric, TrainerStatus
from lmft_api.wire.run_file import Stage
from lmft_operator.domain.facts import JobFacts, PodFacts
from lmft_operator.status.progress import ProgressReport, admitted, duration, merged, newsworthy
from lmft_operator.tokens.identity import POD_NAME, POD_UID, Identity, Refusal, identity

REVIEW: dict[str, Any] = {
    "authenticated": True,
    "audiences": ["lmfinetune.dev"],
    "user": {
        "username": "system:serviceaccount:team-a:default",
        "extra": {POD_NAME: ["eli5-1-abcde"], POD_UID: ["pod-uid"]},
    },
}
WHO = Identity("team-a", "eli5-1-abcde", "pod-uid")
POD = PodFacts(
    name="eli5-1-abcde",
    uid="pod-uid",
    version="1",
    run_uid="run",
    attempt=1,
    phase="Running",
    created=0,
    owner="job-uid",
)
JOB = JobFacts(name="eli5-1", uid="job-uid", version="1", run_uid="run", attempt=1, stage=Stage.ALL, created=0, gpus=0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, WHO),
        ({"authenticated": False}, Refusal(401, "token")),
        ({"user": None}, Refusal(401, "token")),
        ({"audiences": ["https://kubernetes.default.svc"]}, Refusal(401, "audience")),
        ({"audiences": None}, Refusal(401, "audience")),
        ({"user": {"username": "system:serviceaccount:team-a:default"}}, Refusal(403, "unbound")),
        ({"user": {**REVIEW["user"], "username": "jane"}}, Refusal(403, "unbound")),
        ({"user": {**REVIEW["user"], "extra": {POD_NAME: ["x"]}}}, Refusal(403, "unbound")),
    ],
    ids=str,
)
def test_a_token_proves_a_pod_only_when_it_is_ours_and_bound(change, expected):
    assert identity({**REVIEW, **change}) == expected


@pytest.mark.parametrize(
    ("pod", "job", "expected"),
    [
        (POD, JOB, POD),
        (replace(POD, uid="another"), JOB, Refusal(403, "pod")),
        (replace(POD, name="another"), JOB, Refusal(403, "pod")),
        (replace(POD, gone=True), JOB, Refusal(403, "pod")),
        (replace(POD, owner=""), JOB, Refusal(403, "job")),
        (replace(POD, owner="another-job"), JOB, Refusal(403, "job")),
        (replace(POD, run_uid="another-run"), JOB, Refusal(403, "job")),
        (replace(POD, attempt=2), JOB, Refusal(403, "job")),
    ],
)
def test_a_pod_reports_only_for_the_run_that_its_job_belongs_to(pod, job, expected):
    assert admitted(WHO, [pod], [job]) == expected


def report(percentage: int | None = 42, remaining: int | None = 190, **metrics: object) -> ProgressReport:
    sent = TrainerStatus(
        progress_percentage=percentage,
        estimated_remaining_seconds=remaining,
        metrics=[Metric(name=name, value=str(value)) for name, value in metrics.items()],
        last_updated_time="2026-01-01T00:00:00Z",
    )
    return ProgressReport("run", 2, 0.0, sent, "1a2b3c4d-5e6f-7890-abcd-ef0123456789")


def test_a_report_becomes_progress_evaluation_and_checkpoint():
    after = merged(
        LMFineTuneStatus(),
        report(
            current_step=420, total_steps=1000, current_epoch=1.26, loss=3.71, tokens_per_second=1630.4,
            eval_loss=4.0436, perplexity=57.02, eval_step=400, eval_epoch=1.2, eval_train_loss=3.9, checkpoint_step=400,
        ),
        "s3://m/team-a/runs/eli5-12345678",
    )  # fmt: skip
    assert after.to_json() == {
        "progress": {
            "percent": 42, "display": "42%", "eta": "3m10s", "step": 420, "totalSteps": 1000, "epoch": "1.26",
            "loss": "3.7100", "tokensPerSecond": 1630, "lastUpdateTime": "1970-01-01T00:00:00Z",
        },
        "results": {"display": "perplexity 57.02", "perplexity": "57.02", "evalLoss": "4.0436"},
        "evaluations": [
            {"step": 400, "epoch": "1.20", "trainLoss": "3.9000", "evalLoss": "4.0436", "perplexity": "57.02"}
        ],
        "checkpoint": {
            "step": 400, "time": "1970-01-01T00:00:00Z",
            "uri": "s3://m/team-a/runs/eli5-12345678/checkpoints/attempt-0002-1a2b3c4d/step-00000400",
        },
    }  # fmt: skip


def test_a_plain_trainers_loss_gives_the_perplexity():
    after = merged(LMFineTuneStatus(), report(eval_loss=2.0), "s3://m")
    assert after.results == Results(display="perplexity 7.39", perplexity="7.39", eval_loss="2.0000")


def test_repeated_and_older_figures_change_nothing_that_is_kept():
    # given a run resumed from step 200, whose status already shows step 400
    before = LMFineTuneStatus(
        evaluations=[EvaluationResult(step=400, epoch="1", eval_loss="4.0000")],
        checkpoint=CheckpointStatus(step=400, uri="s3://old"),
    )
    # when it reports its evaluation at 400 again and an older checkpoint
    after = merged(before, report(eval_loss=4.0, eval_step=400, eval_epoch=1, checkpoint_step=300), "s3://m")
    assert after.evaluations == before.evaluations
    assert after.checkpoint == before.checkpoint


def test_where_an_attempt_began_is_kept_for_the_day_that_it_is_killed():
    before = LMFineTuneStatus(attempts=[Attempt(number=1, job="eli5-1"), Attempt(number=2, job="eli5-2")])
    after = merged(before, report(resumed_from_step=400, lost_steps=12), "s3://m")
    assert [(a.resumed_from_step, a.lost_steps) for a in after.attempts or ()] == [(None, None), (400, 12)]
    assert newsworthy(before, after)


def test_nonsense_numbers_are_left_out_and_do_not_fail():
    after = merged(
        LMFineTuneStatus(), report(loss="nan", current_step="-3", total_steps="1e300", eval_loss="x"), "s3://m"
    )
    assert after.progress is not None
    assert (after.progress.loss, after.progress.step, after.progress.total_steps) == (None, None, None)
    assert after.results is None


def test_a_figure_of_many_digits_is_written_as_the_result_writes_it():
    after = merged(LMFineTuneStatus(), report(eval_loss=690.0, eval_step=1, perplexity=4.6e299), "s3://m")
    assert after.results is not None
    assert after.evaluations is not None
    assert (after.results.perplexity, after.evaluations[0].perplexity) == ("4.60e+299", "4.60e+299")


def test_an_evaluation_is_news_and_progress_alone_is_not():
    before = LMFineTuneStatus()
    assert not newsworthy(before, merged(before, report(loss=3.0), "s3://m"))
    assert newsworthy(before, merged(before, report(eval_loss=3.0, eval_step=1), "s3://m"))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (45, "45s"), (190, "3m10s"), (7500, "2h5m"), (273_600, "3d4h")]
)
def test_durations_read_like_kubectls(seconds, text):
    assert duration(seconds) == text
