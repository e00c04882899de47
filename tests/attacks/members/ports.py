"""Strangers at the ports and in the names of Leases and tokens: what needs no right at all.

The effect would be a token that is accepted or reviewed though it claims nothing of use, an exception, a known pod that
is pushed out, or an operator that decides beside another one.
"""

import asyncio
import base64
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from attacks.registry import Attack
from lmft_operator.cluster.errors import ConflictError
from lmft_operator.cluster.leader import Elector
from lmft_operator.settings import LeaderSettings
from lmft_operator.tokens.identity import Identity, Refusal, claimed, identity
from lmft_operator.tokens.reviews import Reviews

OURS: dict[str, Any] = {
    "aud": ["lmfinetune.dev"],
    "kubernetes.io": {"namespace": "team", "pod": {"name": "own-1-x", "uid": "uid-1"}},
}
VALUES: dict[str, Any] = {
    "absent": None,
    "a number": 7,
    "a list": ["lmfinetune.devil"],
    "an object": {"lmfinetune.dev": True},
    "an empty text": "",
    "a longer name": "lmfinetune.dev.example.com",
    "20,000 levels": "DEEP",
    "half a character": "\ud800",
}
LEASES: dict[str, Any] = {
    "no spec": {},
    "spec is a text": {"spec": "x"},
    "spec is a list": {"spec": [1]},
    "holder is an object": {"spec": {"holderIdentity": {"a": 1}}},
    "a duration of a million years": {"spec": {"holderIdentity": "other", "leaseDurationSeconds": 31_536_000_000_000}},
    "a negative duration": {"spec": {"holderIdentity": "other", "leaseDurationSeconds": -1}},
    "a duration that is a text": {"spec": {"holderIdentity": "other", "leaseDurationSeconds": "1"}},
    "transitions that are a text": {"spec": {"holderIdentity": "", "leaseTransitions": "many"}},
    "annotations are a list": {"spec": {"holderIdentity": ""}, "annotations": [1]},
}


def token(claims: Any) -> str:
    text = json.dumps(claims).replace('"DEEP"', "[" * 20_000)
    return f"e30.{base64.urlsafe_b64encode(text.encode()).decode().rstrip('=')}.c2ln"


def attacks() -> Iterator[Attack]:
    """Each claim of a token turned into each value, and raw bytes; Leases that others wrote."""
    for what, value in VALUES.items():
        for path in (("aud",), ("kubernetes.io",), ("kubernetes.io", "pod"), ("kubernetes.io", "pod", "uid"),
                     ("kubernetes.io", "pod", "name"), ("kubernetes.io", "namespace")):  # fmt: skip
            claims = json.loads(json.dumps(OURS))
            inner = claims
            for part in path[:-1]:
                inner = inner[part]
            inner[path[-1]] = value
            harmless = path[-1] in {"uid", "name", "namespace"} and isinstance(value, str) and bool(value)
            yield Attack(f"a token's {'.'.join(path)} is {what}", partial(unclaimed, token(claims), harmless))
            yield Attack(f"a review's {'.'.join(path)} is {what}", partial(unproven, value, path[-1]))
    for number, text in enumerate(
        ["", ".", "..", "a.b.c", "a." + "=" * 900 + ".c", "\x00.\x00.\x00", "e30.e30.e30", "é.é.é"]
    ):
        yield Attack(f"token {number} of no form", partial(unclaimed, text, False))
    yield Attack("5,000 forged tokens beside a proven one", pushed_out)
    for what, lease in LEASES.items():
        yield Attack(f"a Lease: {what}", partial(decides_beside, lease))


def unclaimed(text: str, harmless: bool) -> str | None:
    """A changed token claims nothing, or, with a name in place of a name, another pod."""
    found = claimed(text)
    return None if isinstance(found, Refusal) or harmless else f"it claims {found}"


def unproven(value: Any, part: str) -> str | None:
    """A review in which something is of another type proves no pod."""
    who: dict[str, Any] = {"authenticated": True, "audiences": ["lmfinetune.dev"], "user": {
        "username": "system:serviceaccount:team:default", "extra": {}}}  # fmt: skip
    who["audiences" if part == "aud" else "user"] = value
    found = identity(who)
    return None if isinstance(found, Refusal) else f"it proves {found}"


def pushed_out() -> str | None:
    """A proven token is accepted whatever else was sent."""
    mine, who = token(OURS), Identity("team", "own-1-x", "uid-1")
    asked: list[str] = []

    async def review(sent: str) -> Identity | Refusal:
        asked.append(sent)
        return who if sent == mine else Refusal(401, "token")

    async def flood() -> None:
        reviews = Reviews(review, lambda: 100.0)
        await reviews.refusal(mine, who)
        for number in range(5_000):
            await reviews.refusal(f"{mine}{number}", who)
            await reviews.refusal(f"{mine}{number}", Identity("team", "pod", f"uid-{number}"))
        asked.clear()
        assert await reviews.refusal(mine, who) is None

    asyncio.run(flood())
    return "it was reviewed again" if asked else None


def decides_beside(lease: dict[str, Any]) -> str | None:
    """Nobody decides while another may, and a Lease that cannot be read ends nothing."""
    held: dict[str, Any] = {"metadata": {"name": "l", "namespace": "n", "resourceVersion": "1"}} | lease
    if "annotations" in lease:
        held["metadata"]["annotations"] = lease["annotations"]

    class Leases:
        async def get_lease(self, namespace: str, name: str) -> dict[str, Any]:
            return held

        async def create_lease(self, wanted: dict[str, Any]) -> dict[str, Any]:
            raise ConflictError(409, "exists")

        async def update_lease(self, wanted: dict[str, Any]) -> dict[str, Any]:
            return wanted

    async def look() -> bool:
        elector = Elector(Leases(), LeaderSettings(namespace="n"), "me", clock=lambda: 100.0)
        task = asyncio.create_task(elector.run())
        await asyncio.sleep(0.01)
        if task.done():
            task.result()
        task.cancel()
        return elector.holds()

    decides = asyncio.run(look())
    spec = lease.get("spec")
    other = spec.get("holderIdentity") if isinstance(spec, dict) else None
    return "it decides beside another" if decides and isinstance(other, str) and other else None
