"""Addresses of requests, and what the API server's refusals mean."""

import json
from typing import Any

import pytest

from lmft import Conflict, Forbidden, InvalidManifest, NotFound, Refused, Rule, Unauthorized, Unreachable
from lmft.cluster.lines import split_lines
from lmft.cluster.requests import Request, error_of

GET = Request("get", "team-a", "eli5")
CREATE = Request("create", "team-a")
LIST = Request("list", "")
PODS = Request("list", "team-a", resource="pods", group="", version="v1")
LOG = Request("get", "team-a", "eli5-1-x", "pods", "", "v1", "log")
RBAC = 'lmfinetunes.lmfinetune.dev "eli5" is forbidden: User "ann" cannot get resource "lmfinetunes" in API group "x"'


def said(message: str, **more: Any) -> str:
    return json.dumps({"kind": "Status", "message": message, **more})


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        (GET, "/apis/lmfinetune.dev/v1alpha1/namespaces/team-a/lmfinetunes/eli5"),
        (LIST, "/apis/lmfinetune.dev/v1alpha1/lmfinetunes"),
        (LOG, "/api/v1/namespaces/team-a/pods/eli5-1-x/log"),
        (Request("get", "a/b", "c?d#e"), "/apis/lmfinetune.dev/v1alpha1/namespaces/a%2Fb/lmfinetunes/c%3Fd%23e"),
    ],
)
def test_a_request_has_the_address_of_its_object(request_: Request, path: str) -> None:
    assert request_.path == path


@pytest.mark.parametrize(
    ("request_", "code", "body", "kind", "words"),
    [
        (GET, 404, said("no"), NotFound, "there is no LMFineTune eli5 in namespace team-a. Look with: lmft ls -A"),
        (GET, 404, "404 page not found", NotFound, "the cluster has no lmfinetunes; is LMFineTune installed in it?"),
        (LIST, 404, "404 page not found", NotFound, "the cluster has no lmfinetunes; is LMFineTune installed in it?"),
        (CREATE, 404, said('namespaces "team-a" not found'), NotFound, 'namespaces "team-a" not found'),
        (GET, 401, said("Unauthorized"), Unauthorized, "does not accept your credentials: Unauthorized. Log in"),
        (GET, 403, said(RBAC), Forbidden, "you may not get lmfinetunes in namespace team-a; ask for a Role with"),
        (LIST, 403, said(RBAC), Forbidden, "you may not list lmfinetunes in all namespaces; ask for a ClusterRole"),
        (CREATE, 403, said("exceeded quota: runs"), Forbidden, "the API server refuses: exceeded quota: runs"),
        (CREATE, 409, said("x", reason="AlreadyExists", details={"name": "eli5"}), Conflict,
         "there is a LMFineTune eli5 in namespace team-a already; delete it first, or choose another name"),
        (GET, 409, said("Precondition failed"), Conflict, "Precondition failed. Read the run again"),
        (GET, 400, said("container is waiting"), Refused, "the API server refuses: container is waiting"),
        (GET, 503, "<html>", Unreachable, "the API server at https://k8s does not answer: Words. Check the cluster"),
        (GET, 429, said("too many requests"), Unreachable, "does not answer: too many requests"),
        (GET, 0, "", Unreachable, "does not answer: Words"),
        (GET, 418, "[" * 100_000, Refused, "the API server refuses: Words"),
        (GET, 418, '{"kind": "Status", "details": [1], "message": 3}', Refused, "the API server refuses: 3"),
    ],
)  # fmt: skip
def test_a_refusal_becomes_a_typed_error_that_says_what_to_do(
    request_: Request, code: int, body: str, kind: type[Exception], words: str
) -> None:
    error = error_of(request_, code, "Words", body, "https://k8s")

    assert type(error) is kind
    assert words in str(error)


@pytest.mark.parametrize(
    ("request_", "rule"),
    [
        (GET, Rule("get", "lmfinetunes", "lmfinetune.dev", "team-a")),
        (LIST, Rule("list", "lmfinetunes", "lmfinetune.dev", "")),
        (PODS, Rule("list", "pods", "", "team-a")),
        (LOG, Rule("get", "pods/log", "", "team-a")),
    ],
)
def test_what_is_forbidden_by_rbac_names_the_rule_that_is_missing(request_: Request, rule: Rule) -> None:
    error = error_of(request_, 403, "Forbidden", said('User "ann" cannot x resource "y" in API group ""'), "")

    assert isinstance(error, Forbidden)
    assert error.rule == rule
    assert str(rule) in str(error)


def test_every_problem_that_the_server_finds_is_listed_with_its_field() -> None:
    causes = [
        {"field": "spec.task", "message": "Unsupported value"},
        {"field": "<nil>", "message": "some validation rules were not checked"},
        {"field": "spec.task", "message": "Unsupported value"},
        "nonsense",
    ]
    error = error_of(CREATE, 422, "", said("all in one", reason="Invalid", details={"causes": causes}), "")
    alone = error_of(CREATE, 422, "", said("the policy lmft denied it\x1b[2J", reason="Invalid"), "")
    strict = error_of(
        CREATE, 400, "", said('strict decoding error: unknown field "spec.x", unknown field "spec.y.z"'), ""
    )

    assert isinstance(error, InvalidManifest)
    assert isinstance(strict, InvalidManifest)
    assert [(problem.path, problem.message) for problem in error.problems] == [
        ("spec.task", "Unsupported value"),
        ("", "some validation rules were not checked"),
    ]
    assert str(error).splitlines()[:2] == ["LMFineTune: 2 problems", "  spec.task: Unsupported value"]
    assert "the policy lmft denied it" in str(alone)
    assert [str(problem) for problem in strict.problems] == ["spec.x: unknown field", "spec.y.z: unknown field"]
    assert "\x1b" not in str(alone)


@pytest.mark.parametrize(
    ("parts", "lines"),
    [
        ([], []),
        ([b"a\nb"], [b"a", b"b"]),
        ([b"a", b"b\n", b"\n", b"c\n"], [b"ab", b"", b"c"]),
        ([b"abcd\nefghi", b"jklm"], [b"abcd", b"efgh", b"ijkl", b"m"]),
        ([b"abcdefghij\nk"], [b"abcd", b"efgh", b"ij", b"k"]),
        ([b"abcd", b"\n"], [b"abcd"]),
    ],
)
def test_lines_come_whole_and_endless_ones_in_pieces(parts: list[bytes], lines: list[bytes]) -> None:
    assert list(split_lines(parts, longest=4)) == lines
