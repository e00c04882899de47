"""Metrics over HTTPS: who is answered, how often the API server is asked, and whom strangers can harm."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from lmft_operator.cluster.access import Access
from lmft_operator.cluster.client import Cluster
from lmft_operator.process.limits import Limits
from lmft_operator.serving import metrics
from lmft_operator.serving.certificates import ServingCertificate
from lmft_operator.serving.http import Port, Server, metric_routes
from lmft_operator.serving.metrics import Guard, authorizer
from lmft_operator.settings import ApiSettings
from lmft_operator.tokens import authorization
from lmft_operator.tokens.authorization import (
    ALLOWED_SECONDS,
    MAX_ALLOWED_KEPT,
    MAX_REFUSALS_KEPT,
    MAX_SOURCES_KEPT,
    REFUSED_SECONDS,
    REVIEWS_IN_A_BURST,
    Authorizer,
    Subject,
    bearer,
    permitted,
    subject,
)
from lmft_operator.tokens.identity import Refusal
from lmft_operator.tokens.reviews import MAX_REVIEWS_AT_ONCE

USER: dict[str, Any] = {
    "username": "system:serviceaccount:monitoring:prometheus",
    "uid": "account-uid",
    "groups": ["system:serviceaccounts", "system:authenticated"],
    "extra": {"authentication.kubernetes.io/pod-name": ["prometheus-0"]},
}
READER: Subject = {"user": USER["username"]} | {name: USER[name] for name in ("uid", "groups", "extra")}
TOKEN, FORBIDDEN, BUSY = Refusal(401, "token"), Refusal(403, "forbidden"), Refusal(429, "reviews")
SILENT = Refusal(503, "review")


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("Bearer  abc ", "abc"),
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("Basic abc", None),
        ("Bearer a b", None),
        ("Bearer " + "x" * 9000, None),
    ],
)
def test_a_token_stands_behind_the_word_bearer(header: str, token: str | None) -> None:
    assert bearer(header) == token


@pytest.mark.parametrize(
    ("review", "expected"),
    [
        ({"authenticated": True, "user": USER}, READER),
        ({"authenticated": True, "user": {"username": "jane"}}, {"user": "jane"}),
        ({"authenticated": False, "user": USER}, TOKEN),
        ({"authenticated": "true", "user": USER}, TOKEN),
        ({"authenticated": True, "user": {"username": ""}}, TOKEN),
        ({"authenticated": True}, TOKEN),
        ({"error": "invalid bearer token"}, TOKEN),
        ({}, TOKEN),
    ],
)
def test_a_review_names_the_user_with_uid_groups_and_extra(review: dict[str, Any], expected: Subject | Refusal) -> None:
    assert subject(review) == expected


@pytest.mark.parametrize(
    ("review", "expected"),
    [
        ({"allowed": True}, None),
        ({"allowed": True, "denied": False}, None),
        ({"allowed": True, "denied": True}, FORBIDDEN),
        ({"allowed": False}, FORBIDDEN),
        ({"allowed": "yes"}, FORBIDDEN),
        ({"evaluationError": "a webhook is away"}, FORBIDDEN),
        ({}, FORBIDDEN),
    ],
)
def test_only_a_plain_yes_permits(review: dict[str, Any], expected: Refusal | None) -> None:
    assert permitted(review) == expected


class Reviewing:
    """Answers for the API server: users by token, and those of them who may."""

    def __init__(self, users: dict[str, str] | None = None, may: set[str] | None = None) -> None:
        self.users, self.readers = users or {}, may or set()
        self.asked: list[str] = []
        self.away = False
        self.now = 1000.0
        self.authorizer = Authorizer(self.who, self.may, lambda: self.now)

    async def who(self, token: str) -> Subject | Refusal:
        self.asked.append(token)
        if self.away:
            return SILENT
        return {"user": self.users[token]} if token in self.users else TOKEN

    async def may(self, reader: Subject) -> Refusal | None:
        return None if reader["user"] in self.readers else FORBIDDEN


async def test_an_answer_is_believed_for_a_while_and_then_asked_for_again() -> None:
    api = Reviewing({"good": "prometheus", "other": "jane"}, {"prometheus"})
    for _ in range(3):
        assert await api.authorizer.user("good", "10.0.0.1") == "prometheus"
        assert await api.authorizer.user("other", "10.0.0.1") == FORBIDDEN
        assert await api.authorizer.user("forged", "10.0.0.1") == TOKEN
    assert api.asked == ["good", "other", "forged"]

    api.readers = {"jane"}
    api.now += REFUSED_SECONDS
    assert await api.authorizer.user("other", "10.0.0.1") == "jane"
    assert await api.authorizer.user("good", "10.0.0.1") == "prometheus"
    api.now += ALLOWED_SECONDS - REFUSED_SECONDS
    assert await api.authorizer.user("good", "10.0.0.1") == FORBIDDEN
    assert api.asked == ["good", "other", "forged", "other", "good"]


async def test_what_the_api_server_could_not_say_is_asked_again_and_a_known_reader_is_no_stranger_after_it() -> None:
    api = Reviewing({"good": "prometheus"}, {"prometheus"})
    assert await api.authorizer.user("good", "10.0.0.1") == "prometheus"
    api.now += ALLOWED_SECONDS
    api.away = True
    for _ in range(3 * REVIEWS_IN_A_BURST):
        assert await api.authorizer.user("good", "10.0.0.1") == SILENT
    api.away = False
    assert await api.authorizer.user("good", "10.0.0.1") == "prometheus"


async def test_unknown_tokens_of_an_address_cost_few_reviews_and_no_other_address_any() -> None:
    api = Reviewing({"good": "prometheus", "rotated": "prometheus"}, {"prometheus"})
    assert await api.authorizer.user("good", "10.0.0.1") == "prometheus"
    found: list[str | Refusal] = []
    for number in range(1000):
        api.now += 0.01
        found.append(await api.authorizer.user(f"forged-{number}", "10.0.0.2"))
    assert set(found) == {TOKEN, BUSY}
    assert len(api.asked) - 1 <= REVIEWS_IN_A_BURST + 10
    assert await api.authorizer.user("rotated", "10.0.0.1") == "prometheus"


async def test_a_known_reader_is_asked_about_again_however_many_strangers_share_its_address() -> None:
    api = Reviewing({"good": "prometheus"}, {"prometheus"})
    assert await api.authorizer.user("good", "10.0.0.1") == "prometheus"
    for number in range(3 * MAX_REFUSALS_KEPT):
        api.now += 0.05
        await api.authorizer.user(f"forged-{number}", "10.0.0.1")
        if number % 100 == 0:
            assert await api.authorizer.user("good", "10.0.0.1") == "prometheus"


async def test_what_is_remembered_is_bounded() -> None:
    users = {f"good-{number}": f"user-{number}" for number in range(MAX_ALLOWED_KEPT + 50)}
    api = Reviewing(users, set(users.values()))
    for number, token in enumerate(users):
        assert await api.authorizer.user(token, f"10.0.0.{number}") == users[token]
    for number in range(MAX_SOURCES_KEPT + 50):
        assert await api.authorizer.user(f"forged-{number}", f"10.1.0.{number}") == TOKEN

    kept = api.authorizer
    assert (len(kept._allowed), len(kept._refused), len(kept._due)) == (
        MAX_ALLOWED_KEPT, MAX_REFUSALS_KEPT, MAX_SOURCES_KEPT,
    )  # fmt: skip


async def test_one_token_on_many_connections_is_reviewed_once_and_many_tokens_few_at_a_time() -> None:
    under_way, most = 0, 0
    asked: list[str] = []

    async def who(token: str) -> Subject:
        nonlocal under_way, most
        asked.append(token)
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= 1
        return {"user": "prometheus"}

    async def may(reader: Subject) -> None:
        return None

    authorizer = Authorizer(who, may, lambda: 1000.0)
    tokens = [f"token-{number}" for number in range(5 * MAX_REVIEWS_AT_ONCE)]
    found = await asyncio.gather(*(authorizer.user(token, token) for token in tokens))
    assert set(found) == {"prometheus"}
    assert most == MAX_REVIEWS_AT_ONCE

    asked.clear()
    source = [authorizer.user("same", f"10.0.0.{number}") for number in range(50)]
    assert set(await asyncio.gather(*source)) == {"prometheus"}
    assert len(asked) <= MAX_REVIEWS_AT_ONCE


async def test_strangers_whose_reviews_hang_hold_up_no_known_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    hang = asyncio.Event()
    now = 1000.0

    async def who(token: str) -> Subject | Refusal:
        if token == "good":
            return {"user": "prometheus"}
        await hang.wait()
        return TOKEN

    async def may(reader: Subject) -> None:
        return None

    authorizer = Authorizer(who, may, lambda: now)
    assert await authorizer.user("good", "10.0.0.1") == "prometheus"
    now += ALLOWED_SECONDS
    monkeypatch.setattr(authorization, "ASK_SECONDS", 0.2)
    crowd = [asyncio.create_task(authorizer.user(f"forged-{n}", f"10.1.0.{n}")) for n in range(100)]
    await asyncio.sleep(0)
    assert await authorizer.user("good", "10.0.0.1") == "prometheus"
    assert set(await asyncio.gather(*crowd)) == {SILENT}


class ApiServer:
    """The two reviews over HTTP; tokens are names of users, of whom ``prometheus`` may."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.failing: set[str] = set()
        self.application = web.Application()
        self.application.router.add_post("/apis/{group}/v1/{resource}", self.review)

    async def review(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        if body["kind"] in self.failing:
            return web.json_response({"message": "away"}, status=500)
        token = body["spec"].get("token")
        if body["kind"] == "TokenReview":
            status = {"authenticated": token != "forged", "user": USER | {"username": token}}
        else:
            status = {"allowed": body["spec"]["user"] == "prometheus"}
        return web.json_response({"kind": body["kind"], "status": status}, status=201)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost",
         "-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


PORT = 28433


@asynccontextmanager
async def serving(api: ApiServer, certificate: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """The metrics over HTTPS, and a client that trusts them."""
    async with TestServer(api.application) as server:
        cluster = Cluster(ApiSettings(), Access(str(server.make_url("")).rstrip("/"), ssl.create_default_context()))
        tls = ServingCertificate(certificate / "tls.crt", certificate / "tls.key").context
        guard = Guard(authorizer(cluster))
        server = Server(metric_routes(guard), Port("metrics", "127.0.0.1", PORT, Limits(), tls))
        guard.trust = server.trust
        await server.start()
        trusting = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(certificate / "tls.crt")))
        try:
            async with aiohttp.ClientSession(f"https://localhost:{PORT}", connector=trusting) as session:
                yield session
        finally:
            await server.stop()
            await cluster.close()


async def scrape(session: aiohttp.ClientSession, authorization: str | None) -> tuple[int, str]:
    headers = {"Authorization": authorization} if authorization is not None else {}
    async with session.get("/metrics", headers=headers) as answer:
        return answer.status, await answer.text()


async def test_metrics_are_answered_to_readers_alone(certificate: Path) -> None:
    api = ApiServer()
    async with serving(api, certificate) as session:
        table = [
            ("Bearer prometheus", 200, "# TYPE lmft_scrapes_total counter"),
            (None, 401, "needs a bearer token"),
            ("Basic prometheus", 401, "needs a bearer token"),
            ("Bearer forged", 401, "needs a bearer token"),
            ("Bearer jane", 403, "may not get the path /metrics"),
        ]
        for header, status, words in table:
            found, text = await scrape(session, header)
            assert (found, words in text) == (status, True), header
            assert status == 200 or "lmft_" not in text
        refused = await session.get("/metrics")
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        flood = {(await scrape(session, f"Bearer user-{number}"))[0] for number in range(3 * REVIEWS_IN_A_BURST)}
        assert flood == {403, 429}
        assert (await scrape(session, "Bearer prometheus"))[0] == 200
        assert (await session.get("/healthz", headers={"Authorization": "Bearer prometheus"})).status == 404

    token_review, access_review = api.bodies[:2]
    assert token_review["spec"] == {"token": "prometheus"}, "any audience that the API server takes"
    assert access_review["spec"] == READER | {
        "user": "prometheus",
        "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
    }


@pytest.mark.parametrize("kind", ["TokenReview", "SubjectAccessReview"])
async def test_without_the_api_servers_word_nobody_is_answered_and_then_they_are(kind: str, certificate: Path) -> None:
    api = ApiServer()
    async with serving(api, certificate) as session:
        api.failing = {kind}
        status, text = await scrape(session, "Bearer prometheus")
        assert (status, "lmft_" in text) == (503, False)
        api.failing = set()
        assert (await scrape(session, "Bearer prometheus"))[0] == 200


def test_every_refusal_has_words() -> None:
    assert {found.reason for found in (TOKEN, FORBIDDEN, BUSY, SILENT)} == set(metrics._WORDS)
