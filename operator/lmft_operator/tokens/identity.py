"""The pod that a token belongs to: what the token claims, and what a TokenReview proves."""

import base64
import json
from dataclasses import dataclass

from lmft_api.wire.run_file import TOKEN_AUDIENCE

POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"


@dataclass(frozen=True, slots=True)
class Identity:
    """The pod that a token is bound to, as proved by a TokenReview."""

    namespace: str
    pod: str
    pod_uid: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a report is refused: an HTTP status and a word for the log and the metric."""

    code: int
    reason: str


def identity(review: dict[str, object]) -> Identity | Refusal:
    """The pod behind a token, from the ``status`` of its TokenReview.

    The audience must be ours: a token for the API server, or for another service, proves nothing here.
    """
    user = review.get("user")
    audiences = review.get("audiences")
    if not review.get("authenticated") or not isinstance(user, dict):
        return Refusal(401, "token")
    if not isinstance(audiences, list) or TOKEN_AUDIENCE not in audiences:
        return Refusal(401, "audience")
    extra = user.get("extra") or {}
    pod, uid = (next(iter(extra.get(key) or ()), "") for key in (POD_NAME, POD_UID))
    parts = str(user.get("username", "")).split(":")
    if not pod or not uid or parts[:2] != ["system", "serviceaccount"] or len(parts) != 4:
        return Refusal(403, "unbound")
    return Identity(parts[2], pod, uid)


def claimed(token: str) -> Identity | Refusal:
    """The pod that a token claims to be bound to, read without proof: tokens with useless claims cost no review.

    A bound token of a service account is a JWT (RFC 7519) whose payload holds ``aud`` and ``kubernetes.io``.
    """
    try:
        _, payload, _ = token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        audiences = claims["aud"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return Refusal(401, "token")
    if TOKEN_AUDIENCE not in (audiences if isinstance(audiences, list) else [audiences]):
        return Refusal(401, "audience")
    bound = claims.get("kubernetes.io")
    match bound:
        case {"namespace": str(namespace), "pod": {"name": str(name), "uid": str(uid)}} if namespace and name and uid:
            return Identity(namespace, name, uid)
    return Refusal(403, "unbound")
