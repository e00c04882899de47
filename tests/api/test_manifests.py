"""Which manifests pass, and what is said about those that do not. The API server is asked the same in tests/cluster."""

import pytest
from api.manifests import Case, cases

from lmft_api.manifest.validation import document_problems, parse_spec
from lmft_api.spec import LMFineTuneSpec

ACCEPTED, REJECTED = list(cases("accepted")), list(cases("rejected"))


def test_there_are_enough_manifests_of_both_kinds():
    assert len(ACCEPTED) >= 30
    assert len(REJECTED) >= 60
    assert all(case.because for case in REJECTED)
    assert not any(case.because for case in ACCEPTED)


@pytest.mark.parametrize("case", ACCEPTED, ids=str)
def test_a_good_manifest_has_no_problems_and_parses(case: Case):
    assert document_problems(case.content) == []
    spec = parse_spec(case.content["spec"])
    assert LMFineTuneSpec.parse(spec.to_json()) == spec


@pytest.mark.parametrize("case", REJECTED, ids=str)
def test_a_bad_manifest_is_told_where_and_what_to_do(case: Case):
    problems = document_problems(case.content)

    for path, message in case.because:
        assert any(problem.path == path and message in problem.message for problem in problems), problems
    assert {problem.path for problem in problems} == {path for path, _ in case.because}, "a problem that is none"
    assert len(problems) == len(case.because), "one mistake, one problem"
