"""``lmft watch``: what it shows of a run."""

import io

from rich.console import Console

from lmft import Event
from lmft.display.history import History
from lmft.display.text import line
from lmft_api.status import LMFineTuneStatus
from lmft_job.cli.watch.view import picture, sparkline

RUNNING = {
    "model": "distilbert/distilgpt2",
    "conditions": [
        {"type": "Succeeded", "status": "Unknown", "reason": "Training", "message": "step 420 of 1000",
         "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ],
    "progress": {"percent": 42, "display": "42%", "eta": "3m10s", "step": 420, "totalSteps": 1000, "loss": "3.71",
                 "tokensPerSecond": 1630},
    "evaluations": [{"step": 400, "epoch": "1.2", "trainLoss": "3.9", "evalLoss": "4.0", "perplexity": "54.6"}],
    "results": {"baselinePerplexity": "62.30", "perplexity": "54.60"},
    "attempts": [{"number": 1, "job": "a-1"}, {"number": 2, "job": "a-2", "resumedFromStep": 400, "lostSteps": 12}],
}  # fmt: skip
DONE = {
    **RUNNING,
    "conditions": [{**RUNNING["conditions"][0], "status": "True", "reason": "Completed", "message": ""}],
    "results": {"perplexity": "49.61", "baselinePerplexity": "62.30", "modelURI": "s3://m/model",
                "reportURI": "s3://m/report.html",
                "samples": [{"prompt": "The [bold]sky", "before": "qe", "after": "is blue"}]},
}  # fmt: skip


def shown(document, events=(), width=100) -> str:
    status = LMFineTuneStatus.parse(document)
    history = History()
    history.add(status)
    out = io.StringIO()
    Console(file=out, width=width).print(picture("eli5", status, history, events, width))
    return out.getvalue()


def test_a_running_run_shows_phase_bar_figures_resume_curve_and_events():
    text = shown(RUNNING, [Event("2026-01-01T10:11:12+00:00", "Warning", "Interrupted", "evicted")])
    for part in ("eli5", "Training", "42%", "step 420/1000", "loss 3.71", "1,630 tok/s", "3m10s left", "62.30", "54.60",
                 "resumed from step 400; 12 steps repeated", "10:11:12 Interrupted evicted", "3.90"):  # fmt: skip
        assert part in text


def test_a_finished_run_shows_samples_as_written_and_where_things_lie():
    text = shown(DONE)
    for part in (
        "Completed",
        "“The [bold]sky”",
        "before ▸ qe",
        "after  ▸ is blue",
        "s3://m/model",
        "s3://m/report.html",
    ):
        assert part in text
    assert "left" not in text
    assert LMFineTuneStatus.parse(DONE).ended


def test_what_a_pod_said_commands_no_terminal_and_figures_that_are_none_are_left_out():
    evaluations = [{"step": 1, "epoch": "1", "trainLoss": loss, "evalLoss": "2"} for loss in ("n/a", "NaN")]
    samples = [{"prompt": "\x1b]0;title\x07", "after": "\x1b[2J"}]
    text = shown({**DONE, "evaluations": evaluations, "results": {"samples": samples}})
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[2J" in text


def test_an_empty_status_is_a_pending_run():
    assert "Pending" in shown({})
    assert line("eli5", LMFineTuneStatus()) == "eli5 · Pending"


def test_a_pipe_gets_one_plain_line():
    text = line("eli5", LMFineTuneStatus.parse(RUNNING))
    assert text == "eli5 · Training · step 420/1000 · loss 3.71 · 3m10s left · perplexity 54.60 · step 420 of 1000"


def test_the_curve_falls_from_high_to_low_and_is_thinned_to_the_width():
    falling = [100 - i for i in range(100)]
    curve = sparkline(falling, 20)
    assert len(curve) == 20
    assert (curve[0], curve[-1]) == ("█", "▁")
    assert sparkline([1.0, 1.0], 20) == "▁▁"
    assert sparkline([], 20) == ""
