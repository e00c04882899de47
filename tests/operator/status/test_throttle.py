"""When a report shows: news at once but bounded, figures now and then, silence as a stall that a report ends."""

from dataclasses import replace
from pathlib import Path

import pytest

from lmft_api.status import LMFineTuneStatus
from lmft_api.wire.progress import Metric, TrainerStatus
from lmft_operator.decide.draft import notices
from lmft_operator.settings import OperatorSettings, parse
from lmft_operator.status.progress import ProgressReport
from lmft_operator.status.throttle import NEWS_BURST, NEWS_SECONDS, Overlay, ReceivedReports, overlay

SETTINGS = parse("progress: {url: 'https://progress', patchSeconds: 30, staleSeconds: 300}")
ATTEMPT = {"number": 2, "job": "eli5-2", "startTime": "1970-01-01T00:15:00Z"}  # 900 s

KEPT = ("attempts", "progress", "results", "evaluations")


def decided(reason: str = "Training", **fields: object) -> LMFineTuneStatus:
    """What the decision says of a run whose second attempt runs."""
    found = {"type": "Succeeded", "status": "Unknown", "reason": reason, "message": "Attempt 2 runs on node1.",
             "lastTransitionTime": "1970-01-01T00:00:00Z", "observedGeneration": 1}  # fmt: skip
    both = [found, found | {"type": "Finished", "status": "False", "message": ""}]
    whole = {"phase": "Training", "observedGeneration": 1, "attempts": [ATTEMPT], "conditions": both, **fields}
    return LMFineTuneStatus.parse(whole)


def report(at: float, attempt: int = 2, **metrics: object) -> ProgressReport:
    sent = [Metric(name=name, value=str(value)) for name, value in metrics.items()]
    return ProgressReport("run", attempt, at, TrainerStatus(progress_percentage=11, metrics=sent))


class Life:
    """A run under way: what is written, what was received, and the Events and writes so far."""

    def __init__(self, reason: str = "Training", **fields: object) -> None:
        self.reason_decided = reason
        self.written = decided(reason, **fields)
        self.received = ReceivedReports(since=900.0)
        self.writes = 0
        self.events: list[str] = []

    def look(self, now: float) -> Overlay:
        fields = {name: value for name, value in self.written.to_json().items() if name in KEPT}
        wanted = decided(self.reason_decided, **fields)
        found = overlay(self.written, wanted, self.received, now, SETTINGS, "s3://m")
        if found.status != self.written:
            self.writes += 1
            self.events += [notice.reason for notice in notices(self.written, found.status, ())]
        self.written, self.received = found.status, replace(self.received, pace=found.pace)
        return found

    def hear(self, now: float, **metrics: object) -> Overlay:
        self.received = replace(self.received, report=report(now, **{"current_step": 1, "total_steps": 9} | metrics))
        return self.look(now)

    @property
    def shown(self) -> tuple[str, str]:
        found = self.written.succeeded
        assert found is not None
        return found.reason, found.message


def test_the_first_report_is_written_at_once_and_the_next_after_thirty_seconds():
    life = Life()
    life.hear(1000)
    assert life.shown == ("Training", "step 1 of 9")
    found = life.hear(1010, current_step=2)
    assert (life.shown, found.look_again) == (("Training", "step 1 of 9"), 20.0)
    life.hear(1030, current_step=4)
    assert (life.shown, life.writes) == (("Training", "step 4 of 9"), 2)


def test_figures_that_had_to_wait_are_written_though_no_others_come():
    life = Life()
    life.hear(1000)
    found = life.hear(1010, current_step=2)
    life.look(1010 + found.look_again)
    assert life.shown == ("Training", "step 2 of 9")
    assert life.hear(1031, current_step=3).look_again == 29.0


def test_an_evaluation_does_not_wait():
    life = Life()
    life.hear(1000)
    life.hear(1001, current_step=2, eval_loss=2.0, eval_step=2)
    assert life.written.results is not None
    assert life.written.results.perplexity == "7.39"


SAID = [
    ("Evaluating", "Evaluating", "Evaluating on the held-out data, step 1 of 9."),
    ("Sampling", "Evaluating", "Answering the prompts, step 1 of 9."),
    ("Saving", "Training", "Saving model and report, step 1 of 9."),
    ("Training", "Training", "step 1 of 9"),
    ("Mining", "Training", "step 1 of 9"),
]


@pytest.mark.parametrize(("phase", "reason", "message"), SAID)
def test_what_the_job_does_shows_at_once_and_only_what_is_known(phase, reason, message):
    life = Life()
    life.hear(1000)
    life.hear(1001, phase=phase)
    assert life.shown == ((reason, message) if phase != "Saving" else ("Training", "step 1 of 9"))
    life.hear(1040, phase=phase)
    assert life.shown == (reason, message)
    assert life.written.phase == "Training"


def test_a_rank_that_every_step_waits_for_is_named_with_its_node():
    life = Life()
    life.hear(1000)
    life.hear(1040, straggler="rank 3 on gpu-b (1.8 times the median)")
    assert life.shown == ("Training", "step 1 of 9. Every step waits for rank 3 on gpu-b (1.8 times the median).")
    for other in ("", "rank 3", "rank 3 on gpu-b (1.8 times the median) ::error::", "rank x (1 times the median)"):
        life.hear(life.received.report.received + 40, straggler=other)
        assert life.shown == ("Training", "step 1 of 9")


def test_the_baseline_is_evaluated_before_training():
    life = Life()
    life.received = replace(life.received, report=report(1000, phase="Evaluating"))
    life.look(1000)
    assert life.shown == ("Evaluating", "Evaluating on the held-out data, before training.")


def test_after_an_evaluation_training_shows_again_without_an_event():
    life = Life()
    life.hear(1000)
    life.hear(1002, phase="Evaluating")
    life.look(1003)
    assert life.shown[0] == "Evaluating"
    life.hear(1005, phase="Training", current_step=2)
    assert life.shown == ("Training", "step 2 of 9")
    assert (life.writes, life.events) == (3, [])


def test_a_run_that_flips_between_phases_does_not_flood():
    life = Life()
    for second in range(300):
        life.hear(1000 + second, phase=("Training", "Evaluating")[second % 2])
    assert life.writes <= 300 / NEWS_SECONDS + 300 / 30 + NEWS_BURST + 1
    assert life.events == []


def test_evaluations_one_after_the_other_do_not_flood():
    life = Life()
    for second in range(300):
        life.hear(1000 + second, eval_loss=2.0, eval_step=second)
    assert life.writes <= 300 / NEWS_SECONDS + 300 / 30 + NEWS_BURST + 1


def test_news_that_had_to_wait_is_written_when_its_time_has_come():
    life = Life()
    for number in range(12):
        found = life.hear(1000 + number / 2, phase=("Training", "Evaluating")[number % 2])
    assert life.shown[0] == "Training"
    assert 0 < found.look_again <= NEWS_SECONDS
    life.look(1005.5 + found.look_again)
    assert life.shown[0] == "Evaluating"


def test_preparing_stays_preparing_whatever_the_job_calls_it():
    life = Life("Preparing")
    life.hear(1000, phase="Evaluating")
    assert life.shown == ("Preparing", "Attempt 2 runs on node1.")


@pytest.mark.parametrize("reason", ["Training", "Preparing"])
def test_silence_is_a_stall_that_a_report_ends(reason):
    life = Life(reason)
    found = life.hear(1000)
    assert found.look_again == 300.0
    life.look(1299)
    assert life.shown[0] == reason
    life.look(1300)
    assert life.shown[0] == "Stalled"
    assert "has not reported since 1970-01-01T00:16:40Z" in life.shown[1]
    assert "#stalled" in life.shown[1]
    assert life.look(1900).look_again is None
    life.hear(1901)
    assert life.shown[0] == reason
    assert (life.writes, life.events) == (3, ["Stalled", reason])


def test_a_stall_ends_an_evaluation_too():
    life = Life()
    life.hear(1000, phase="Evaluating")
    life.look(1300)
    assert life.shown[0] == "Stalled"


def test_a_restarted_operator_gives_a_silent_run_its_time_and_then_calls_it_stalled():
    # given a run that was heard of at 1000, and an operator that listens since 5000
    life = Life()
    life.hear(1000)
    life.received = ReceivedReports(since=5000.0)
    found = life.look(5000)
    assert (life.shown[0], found.look_again) == ("Training", 300.0)
    life.look(5300)
    assert life.shown[0] == "Stalled"
    # and the one that comes after it does not take that back until a report arrives
    life.received = ReceivedReports(since=6000.0)
    life.look(6000)
    assert life.shown[0] == "Stalled"
    life.hear(6001, current_step=5)
    assert life.shown == ("Training", "step 5 of 9")


def test_a_run_that_never_reports_is_not_stalled():
    life = Life()
    assert life.look(100_000).look_again is None
    assert (life.shown[0], life.writes) == ("Training", 0)


def test_a_resumed_run_says_from_where_what_it_cost_and_what_had_happened():
    first = {"number": 1, "job": "eli5-1", "reason": "Interrupted", "message": "Eviction API: evicting."}
    life = Life(attempts=[first, ATTEMPT])
    life.hear(1000, current_step=412, total_steps=1000, resumed_from_step=400, lost_steps=12)
    assert life.shown == (
        "Training",
        "step 412 of 1000. Attempt 2 runs on node1, resumed from step 400; 12 steps repeated. "
        "Attempt 1 ended with Interrupted: Eviction API: evicting.",
    )
    life.hear(1002, current_step=420, total_steps=1000, phase="Evaluating", resumed_from_step=400, lost_steps=12)
    assert life.shown[1].startswith(
        "Evaluating on the held-out data, step 420 of 1000. Attempt 2 runs on node1, resumed"
    )


def test_where_nobody_listens_nobody_is_silent():
    life = Life()
    life.hear(1000)
    life.look(1300)
    assert life.shown[0] == "Stalled"
    # when the platform team switches progress off, and the operator starts anew
    settings = parse("progress: {url: null}")
    found = overlay(life.written, decided(), ReceivedReports(since=2000.0), 9000.0, settings, "s3://m")
    assert found.status.reason == "Training"


def test_what_an_earlier_attempt_reported_is_no_sign_of_the_present_one():
    life = Life()
    life.written = decided(progress={"step": 7, "totalSteps": 9, "lastUpdateTime": "1970-01-01T00:10:00Z"})
    life.look(100_000)
    assert life.shown == ("Training", "Attempt 2 runs on node1.")
    life.received = replace(life.received, report=report(100_001, attempt=1, current_step=8, total_steps=9))
    life.look(100_001)
    assert life.written.progress.step == 7


def test_a_run_that_has_ended_is_left_alone():
    done = decided("Completed")
    received = ReceivedReports(since=900.0, report=report(1000, current_step=1, total_steps=9))
    assert overlay(done, done, received, 1000.0, SETTINGS, "s3://m").status == done


def test_the_numbers_in_the_documentation_are_these():
    progress = OperatorSettings().progress
    page = " ".join((Path(__file__).parents[3] / "docs/operations.md").read_text(encoding="utf-8").split())
    assert f"Progress is written every {progress.patch_seconds:.0f} seconds" in page
    assert f"or every {NEWS_SECONDS:.0f} seconds" in page
    assert "stops reporting for five minutes is `Stalled`" in page
    assert progress.stale_seconds == 5 * 60
