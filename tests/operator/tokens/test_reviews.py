"""Pods' tokens: what is seen without asking, how often the API server is asked, and whom strangers can harm."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from lmft_operator.domain.facts import PodFacts
from lmft_operator.reports.server import ProgressServer
from lmft_operator.status.progress import ProgressReport
from lmft_operator.tokens.identity import Identity, Refusal, claimed
from lmft_operator.tokens.reviews import MAX_REFUSALS_KEPT, MAX_REVIEWS_AT_ONCE, Review, Reviews

WHO = Identity("team-a", "eli5-1-abcde", "pod-uid")
POD = PodFacts("eli5-1-abcde", "pod-uid", "1", "run", 1, "Running", 0.0)
BODY = {"trainerStatus": {"progressPercentage": 42}}


OURS: dict[str, Any] = {"aud": ["lmfinetune.dev"]}


def payload(who: Identity = WHO, audience: object = ("lmfinetune.dev",)) -> dict[str, Any]:
    return {
        "aud": audience,
        "kubernetes.io": {"namespace": who.namespace, "pod": {"name": who.pod, "uid": who.pod_uid}},
    }


def token(body: object, signature: str = "sig") -> str:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"head.{base64.urlsafe_b64encode(text).decode().rstrip('=')}.{signature}"


CLAIMS = [
    (token(payload()), WHO),
    (token(payload(audience="lmfinetune.dev")), WHO),
    (token(payload(audience=["other", "lmfinetune.dev"])), WHO),
    (token(payload(audience="https://kubernetes.default.svc")), Refusal(401, "audience")),
    (token(payload(audience=[])), Refusal(401, "audience")),
    (token(payload(audience=7)), Refusal(401, "audience")),
    (token(OURS), Refusal(403, "unbound")),
    (token(OURS | {"kubernetes.io": {"namespace": "a", "pod": {"name": "b"}}}), Refusal(403, "unbound")),
    (token(OURS | {"kubernetes.io": {"namespace": "a", "pod": "b"}}), Refusal(403, "unbound")),
    (token(OURS | {"kubernetes.io": ["pod"]}), Refusal(403, "unbound")),
    (token(OURS | {"kubernetes.io": {"namespace": 1, "pod": {"name": 2, "uid": 3}}}), Refusal(403, "unbound")),
    (token({}), Refusal(401, "token")),
    (token([1]), Refusal(401, "token")),
    (token(b"[" * 6000), Refusal(401, "token")),
    (token(b'{"aud":' + b"[" * 5000), Refusal(401, "token")),
    (token(b"\xff\xfe"), Refusal(401, "token")),
    (token(b"1" * 5000), Refusal(401, "token")),
    ("not.a.token", Refusal(401, "token")),
    ("a.b", Refusal(401, "token")),
    ("a.b.c.d", Refusal(401, "token")),
    ("..", Refusal(401, "token")),
    ("a.\N{SNOWMAN}.c", Refusal(401, "token")),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "read"), CLAIMS)
def test_what_a_token_claims_is_read_whatever_it_holds(sent: str, read: Identity | Refusal) -> None:
    assert claimed(sent) == read


class ApiServer:
    """Reviews tokens: those in ``true`` are what they claim."""

    def __init__(self, *true: str) -> None:
        self.true, self.asked = set(true), list[str]()

    async def review(self, sent: str) -> Identity | Refusal:
        self.asked.append(sent)
        who = claimed(sent)
        return who if sent in self.true else Refusal(401, "token")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_strangers_cost_one_review_a_second_for_each_pod_they_claim_to_be() -> None:
    server, clock = ApiServer(), Clock()
    reviews = Reviews(server.review, clock)
    for number in range(500):
        clock.now += 0.01
        assert isinstance(await reviews.refusal(token(payload(), f"forged-{number}"), WHO), Refusal)
    assert len(server.asked) <= 6


async def test_a_token_that_was_proven_is_taken_through_any_flood_of_others() -> None:
    mine = token(payload(), "true")
    server, clock = ApiServer(mine), Clock()
    reviews = Reviews(server.review, clock)
    assert await reviews.refusal(mine, WHO) is None
    for number in range(3 * MAX_REFUSALS_KEPT):
        clock.now += 0.04  # 120 s: the review of the proven token runs out on the way
        other = Identity("team-b", "pod", f"uid-{number}")
        for who in (WHO, other):
            assert isinstance(await reviews.refusal(token(payload(who), f"forged-{number}"), who), Refusal)
        if number % 10 == 0:
            assert await reviews.refusal(mine, WHO) is None
    assert server.asked.count(mine) == 2


async def test_a_pod_with_many_true_tokens_pushes_out_its_own_only() -> None:
    other = Identity("team-b", "pod", "uid")
    theirs = token(payload(other), "true")
    mine = [token(payload(), f"true-{number}") for number in range(50)]
    server, clock = ApiServer(theirs, *mine), Clock()
    reviews = Reviews(server.review, clock)
    assert await reviews.refusal(theirs, other) is None
    for sent in mine:
        clock.now += 1
        assert await reviews.refusal(sent, WHO) is None
    assert await reviews.refusal(theirs, other) is None
    assert server.asked.count(theirs) == 1


async def test_a_token_that_proves_another_pod_than_it_claims_is_refused() -> None:
    async def review(sent: str) -> Identity:
        return Identity("team-b", "other", "uid")

    assert await Reviews(review, Clock()).refusal(token(payload()), WHO) == Refusal(401, "token")


def progress_server(
    review: Review,
    clock: Callable[[], float] | None = None,
    pod: PodFacts | Refusal = POD,
    take: Callable[[str, ProgressReport], None] = lambda namespace, report: None,
    count: Callable[[str], None] = lambda outcome: None,
) -> web.Application:
    clock = clock or Clock()
    server = ProgressServer(Reviews(review, clock), lambda who: pod, take, count, clock=clock)
    application = web.Application(client_max_size=16 * 1024)
    application.router.add_post("/", server.post)
    return application


Post = Callable[..., Awaitable[int]]


def posting(client: TestClient[web.Request, web.Application]) -> Post:
    async def post(sent: str, **body: Any) -> int:
        answer = await client.post("/", headers={"Authorization": f"Bearer {sent}"}, **(body or {"json": BODY}))
        return answer.status

    return post


def status(**said: Any) -> dict[str, Any]:
    return {"trainerStatus": said}


GOOD, STRANGE = token(payload()), token(payload(), "forged")
METRIC = {"name": "loss", "value": "3.7"}


@pytest.mark.parametrize(
    ("header", "body", "pod", "expected"),
    [
        (f"Bearer {GOOD}", status(progressPercentage=42, metrics=[METRIC]), POD, (200, "taken")),
        (None, BODY, POD, (401, "token")),
        ("Basic x", BODY, POD, (401, "token")),
        ("Bearer " + "x" * 9000, BODY, POD, (400, None)),
        (f"Bearer {token(payload(audience='other'))}", BODY, POD, (401, "audience")),
        (f"Bearer {STRANGE}", BODY, POD, (401, "token")),
        (f"Bearer {GOOD}", BODY, Refusal(403, "pod"), (403, "pod")),
        (f"Bearer {GOOD}", status(progressPercentage=420), POD, (422, "format")),
        (f"Bearer {GOOD}", status(metrics=[METRIC | {"name": "<x>"}]), POD, (422, "format")),
        (f"Bearer {GOOD}", status(metrics=[METRIC] * 65), POD, (422, "format")),
        (f"Bearer {GOOD}", [], POD, (422, "format")),
        (f"Bearer {GOOD}", {"pad": "x" * 20_000}, POD, (413, "size")),
    ],
)
async def test_the_server_takes_proven_bounded_reports_and_nothing_else(
    header: str | None, body: Any, pod: PodFacts | Refusal, expected: tuple[int, str | None]
) -> None:
    taken: list[tuple[str, ProgressReport]] = []
    counted: list[str] = []
    server = progress_server(
        ApiServer(GOOD).review, pod=pod, take=lambda *report: taken.append(report), count=counted.append
    )
    async with TestClient(TestServer(server)) as client:
        headers = {"Authorization": header} if header is not None else {}
        response = await client.post("/", data=json.dumps(body), headers=headers)

    code, counter = expected
    assert response.status == code
    assert counted == ([counter] if counter else [])
    assert len(taken) == (1 if code == 200 else 0)
    for namespace, found in taken:
        assert (namespace, found.run_uid, found.attempt, found.status.metric("loss")) == ("team-a", "run", 1, "3.7")


async def test_a_pod_that_floods_is_slowed_and_its_token_is_reviewed_once() -> None:
    server = ApiServer(GOOD)
    async with TestClient(TestServer(progress_server(server.review))) as client:
        codes = [await posting(client)(GOOD) for _ in range(3)]

    assert codes == [200, 429, 429]
    assert server.asked == [GOOD]


async def test_a_token_of_no_pod_of_a_run_is_refused_without_a_review() -> None:
    server = ApiServer()
    for pod in (Refusal(403, "pod"), Refusal(403, "job")):
        async with TestClient(TestServer(progress_server(server.review, pod=pod))) as client:
            assert [await posting(client)(token(payload(), f"{n}")) for n in range(5)] == [403] * 5
    assert server.asked == []


async def test_a_flood_of_tokens_takes_few_of_the_api_servers_connections() -> None:
    under_way, most = 0, 0
    release = asyncio.Event()

    async def review(sent: str) -> Identity | Refusal:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await release.wait()
        under_way -= 1
        return Refusal(401, "token")

    reviews = Reviews(review, Clock())
    claims = [Identity("team-a", "pod", f"uid-{number}") for number in range(MAX_REVIEWS_AT_ONCE * 5)]
    asking = [asyncio.create_task(reviews.refusal(token(payload(who)), who)) for who in claims]
    await asyncio.sleep(0.1)
    release.set()
    assert {await task for task in asking} == {Refusal(401, "token")}
    assert most == MAX_REVIEWS_AT_ONCE


async def test_what_the_api_server_could_not_review_is_asked_again() -> None:
    answers: list[Identity | Refusal] = [Refusal(503, "review"), WHO]
    clock = Clock()

    async def review(sent: str) -> Identity | Refusal:
        return answers.pop(0)

    reviews = Reviews(review, clock)
    assert await reviews.refusal(token(payload()), WHO) == Refusal(503, "review")
    clock.now += 1
    assert await reviews.refusal(token(payload()), WHO) is None


async def test_reports_that_cannot_be_read_are_slowed_like_any_others() -> None:
    server = ApiServer(token(payload()))
    async with TestClient(TestServer(progress_server(server.review))) as client:
        codes = [await posting(client)(token(payload()), data=b"{") for _ in range(3)]
    assert codes == [422, 429, 429]


async def test_a_review_is_believed_for_a_while_and_then_asked_for_again() -> None:
    server, clock = ApiServer(token(payload())), Clock()
    async with TestClient(TestServer(progress_server(server.review, clock))) as client:
        for seconds in (0, 30, 31):
            clock.now += seconds
            assert await posting(client)(token(payload())) == 200
    assert len(server.asked) == 2
