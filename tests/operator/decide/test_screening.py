"""A job's last word, written by an image of the user's own: what of it enters the status, and what is left out."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.results import DONE

from lmft_api.reasons import Reason
from lmft_api.status import CheckpointStatus, EvaluationResult, LMFineTuneStatus, Provenance, Results
from lmft_api.text.shown import printable
from lmft_api.wire.result import Counts, Result, decode
from lmft_operator.decide.screening import AcceptanceRules, accepted
from lmft_operator.settings import parse

OWN = {"podTemplate": {"image": "registry.example.com/mine:1"}}
FOLDER = "s3://models/team-a/team-a/runs/eli5-01234567"
STRICT = "{defaults: {outputUri: 's3://models'}, policy: {sources: {uris: ['s3://models/team-a/*']}}}"
GROUNDS = AcceptanceRules(FOLDER, own_image=True, admits=lambda uri: uri.startswith("s3://public/"))


def ended(World, said, platform=STRICT, **spec):
    world = World(**spec)
    world.settings = parse(platform)
    world.step()
    world.end_pod(said=said)
    return world


ADDRESSES = [
    "javascript:alert(document.cookie)",
    "JavaScript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "https://phishing.example.com/model",
    "http://169.254.169.254/latest/meta-data",
    "//phishing.example.com/x",
    "/etc/passwd",
    "s3://elsewhere/model",
    "s3://models/team-b/runs/theirs/model",
    f"{FOLDER}/../../../../team-b/model",
    f"{FOLDER}/%2e%2e/%2e%2e/x",
    f"{FOLDER}/a b",
    f"{FOLDER}/\u202emodel",
    "s3:///model",
    "file:///etc/lmft/secrets/output",
    "file://relative",
    " s3://models/team-a/x",
    "",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_leads_elsewhere_is_left_out_with_a_note_and_the_run_is_completed(World, address):
    results = Results(perplexity="9.5", model_uri=address, adapter_uri=address, report_uri=address)
    world = ended(World, DONE.model_copy(update={"results": results}), **OWN)
    assert (world.succeeded, world.reason) == ("True", "Completed")
    kept = world.status.results
    assert (kept.model_uri, kept.adapter_uri, kept.report_uri) == (None, None, None)
    assert world.status.results.perplexity == "9.5"
    assert "Left out of the status: results.modelURI" in world.message
    assert "policy.sources.uris" in world.message


@pytest.mark.parametrize("address", [f"{FOLDER}/model", "s3://models/team-a/shared/model"])
def test_an_address_below_the_runs_folder_or_allowed_by_policy_is_kept(World, address):
    results = Results(model_uri=address, adapter_uri=address)
    world = ended(World, DONE.model_copy(update={"results": results}), **OWN)
    assert (world.status.results.model_uri, world.status.results.adapter_uri) == (address, address)
    assert "Left out" not in world.message


def test_the_folder_of_a_run_whose_name_begins_alike_is_not_the_runs():
    said = Result(reason=Reason.COMPLETED, results=Results(model_uri=f"{FOLDER}-of-another/model"))
    assert accepted(said, GROUNDS)[0].results.model_uri is None


def test_a_checkpoint_elsewhere_is_no_checkpoint(World):
    said = DONE.model_copy(update={"checkpoint": CheckpointStatus(step=2**62, uri="s3://elsewhere/c")})
    world = ended(World, said, **OWN)
    assert world.status.checkpoint is None
    assert "checkpoint.uri" in world.message


FORGED = Provenance(
    image="ghcr.io/lmfinetune/job:1",
    spec_hash="0" * 64,
    seed=7,
    resumed_from="s3://elsewhere/x",
    versions={"torch": "9"},
)


def test_an_image_of_ones_own_does_not_say_where_its_result_came_from(World):
    world = ended(World, DONE.model_copy(update={"provenance": FORGED}), **OWN)
    told = world.status.provenance
    assert told.image == "registry.example.com/mine:1"
    assert told.spec_hash not in (None, FORGED.spec_hash)
    assert (told.seed, told.versions, told.resumed_from) == (42, None, None)


def test_our_own_image_says_where_its_result_came_from_but_for_the_run_that_it_resumed(World):
    world = ended(World, DONE.model_copy(update={"provenance": FORGED}))
    assert world.status.provenance.versions == {"torch": "9"}
    assert world.status.provenance.resumed_from is None


def test_the_policy_is_asked_again_before_a_later_attempt_resumes(World):
    world = World(resumeFrom={"name": "base"})
    forged = Provenance(resumed_from="s3://models/team-b/secret/model")
    world.settings = parse(STRICT)
    world.status = LMFineTuneStatus(provenance=forged)
    world.step()
    assert (world.reason, world.created) == ("InvalidSpec", [])
    assert "policy.sources.uris" in world.message


@pytest.mark.parametrize(
    "figure", ["NaN", "nan", "Infinity", "-inf", "1e999", "0x1p3", "1_000", "１２", " 4", "4\n", "<b>4</b>", ""]
)
def test_what_is_no_figure_is_left_out_by_name(figure):
    said = Result(
        reason=Reason.COMPLETED,
        results=Results(perplexity=figure, eval_loss="3.25"),
        evaluations=[
            EvaluationResult(step=1, epoch="1", eval_loss=figure),
            EvaluationResult(step=2, epoch="2", eval_loss="3.5", accuracy=figure),
        ],
    )
    kept, notes = accepted(said, GROUNDS)
    assert kept.results == Results(eval_loss="3.25")
    assert kept.evaluations == [EvaluationResult(step=2, epoch="2", eval_loss="3.5")]
    places = [note.partition(" ")[0] for note in notes]
    assert places == ["results.perplexity", "evaluations[0].evalLoss", "evaluations[1].accuracy"]


@pytest.mark.parametrize("figure", ["0", "49.61", "-3.2", "1e15", "1.2e+301", "99999999999999999999999999999999"])
def test_figures_of_every_size_are_kept(figure):
    kept, notes = accepted(Result(reason=Reason.COMPLETED, results=Results(perplexity=figure)), GROUNDS)
    assert (kept.results.perplexity, notes) == (figure, [])


def test_an_attempt_number_that_leaves_none_to_continue_with_is_not_believed():
    for own, number, kept in ((True, 3, None), (False, 3, 3), (False, 2**62, None)):
        found, _ = accepted(
            Result(reason=Reason.COMPLETED, highest_attempt=number), AcceptanceRules(FOLDER, own, lambda _: True)
        )
        assert found.highest_attempt == kept


def test_adjustments_command_no_terminal_and_hold_no_credentials():
    said = Result(reason=Reason.COMPLETED, adjustments=["\x1b[2J\x07batch \u202e4, token=hf_abcdefghijkl"])
    (words,) = accepted(said, GROUNDS)[0].adjustments
    assert words == printable(words)
    assert "hf_abcdefghijkl" not in words


_TEXT = st.text(max_size=64)
_NUMBER = st.one_of(st.integers(-(2**70), 2**70), st.floats(), _TEXT, st.none())
_FIELDS = {
    "reason": st.one_of(st.sampled_from([r.value for r in Reason]), _TEXT),
    "message": _TEXT,
    "results": st.dictionaries(
        st.sampled_from(["perplexity", "evalLoss", "accuracy", "modelURI", "reportURI", "samples"]),
        st.one_of(_NUMBER, st.sampled_from(ADDRESSES), st.lists(st.dictionaries(st.just("prompt"), _TEXT), max_size=3)),
    ),
    "checkpoint": st.fixed_dictionaries({"step": _NUMBER, "uri": st.sampled_from(ADDRESSES)}, optional={"time": _TEXT}),
    "counts": st.dictionaries(st.sampled_from([f.alias for f in Counts.model_fields.values()]), _NUMBER),
    "adjustments": st.lists(_TEXT, max_size=3),
    "provenance": st.dictionaries(st.sampled_from([f.alias for f in Provenance.model_fields.values()]), _NUMBER),
    "evaluations": st.lists(
        st.fixed_dictionaries({"step": _NUMBER, "epoch": _NUMBER, "evalLoss": _NUMBER}), max_size=3
    ),
    "highestAttempt": _NUMBER,
}


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries({"reason": _FIELDS["reason"]}, optional={k: v for k, v in _FIELDS.items() if k != "reason"})
)
def test_whatever_a_pod_writes_is_no_result_or_one_that_fits_the_status(body):
    said = decode(json.dumps(body))
    if said is None:
        return
    kept, _ = accepted(said, GROUNDS)
    # A reason that nobody knows is left to the exit code.
    text = json.dumps({"reason": ""} | kept.to_json(), allow_nan=False)
    assert decode(text) is not None
    for uri in filter(None, [kept.results and kept.results.model_uri, kept.checkpoint and kept.checkpoint.uri]):
        assert uri.startswith((f"{FOLDER}/", "s3://public/"))
    for figure in filter(None, [kept.results and kept.results.perplexity]):
        assert math.isfinite(float(figure))
    assert kept.provenance is None
