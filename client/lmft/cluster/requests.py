"""What is asked of the API server, and what its refusals mean. No I/O."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from lmft.errors import (
    Conflict,
    Forbidden,
    InvalidManifest,
    LMFineTuneError,
    NotFound,
    Refused,
    Rule,
    Unauthorized,
    Unreachable,
)
from lmft_api import GROUP, KIND, PLURAL, VERSION
from lmft_api.manifest.validation import Problem

_METHODS = {"get": "GET", "list": "GET", "watch": "GET", "create": "POST", "patch": "PATCH", "delete": "DELETE"}
_BY_RBAC = re.compile(r"\bcannot \w+ resource\b")
_STRICT = "strict decoding error"
_UNKNOWN_FIELD = re.compile(r'unknown field "([^"]{1,500})"')


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        verb: as RBAC calls it.
        namespace: empty for all of them.
        name: of the object; empty for lists, and for what is new.
        subresource: such as ``log``.
        group: API group; empty for Kubernetes' own.
    """

    verb: str
    namespace: str
    name: str = ""
    resource: str = PLURAL
    group: str = GROUP
    version: str = VERSION
    subresource: str = ""

    @property
    def method(self) -> str:
        """Method of HTTP."""
        return _METHODS[self.verb]

    @property
    def path(self) -> str:
        """Path of the address."""
        root = ("apis", self.group, self.version) if self.group else ("api", self.version)
        place = ("namespaces", self.namespace) if self.namespace else ()
        parts = (*root, *place, self.resource, self.name, self.subresource)
        return "".join(f"/{quote(part, safe='')}" for part in parts if part)

    @property
    def _granted(self) -> str:
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource

    @property
    def rule(self) -> Rule:
        """The permission that it takes."""
        return Rule(self.verb, self._granted, self.group, self.namespace)


def error_of(request: Request, code: int, reason: str, body: str, server: str) -> LMFineTuneError:
    """What an answer other than success means.

    Args:
        code: HTTP status; 0 where the connection could not be secured.
        reason: its words.
        body: a Status of Kubernetes, or whatever a proxy wrote.
        server: address of the API server, for people.
    """
    status = _status(body)
    said = str(status.get("message") or reason or code)
    if code == 401:
        return Unauthorized(f"{server} does not accept your credentials: {said}. Log in to the cluster again", code)
    if code == 403:
        return _forbidden(request, said)
    if code == 404:
        return NotFound(_absent(request, status, said), code)
    if code == 409:
        return Conflict(_conflict(request, status, said), code)
    if code == 422 or status.get("reason") == "Invalid" or (code == 400 and _STRICT in said):
        return InvalidManifest(f"{KIND} {request.name or ''}".rstrip(), _problems(status, said))
    if code == 0 or code == 429 or code >= 500:
        return Unreachable(
            f"the API server at {server} does not answer: {said}. Check the cluster, KUBECONFIG and the context"
        )
    return Refused(f"the API server refuses: {said}", code)


def _forbidden(request: Request, said: str) -> Forbidden:
    if not _BY_RBAC.search(said) and said != "Forbidden":
        return Forbidden(f"the API server refuses: {said}")
    rule = request.rule
    kind = "Role" if rule.namespace else "ClusterRole"
    return Forbidden(
        f"you may not {rule.verb} {rule.resource} {rule.where}; ask for a {kind} with the rule {rule}", rule=rule
    )


def _absent(request: Request, status: Mapping[str, Any], said: str) -> str:
    if not status and request.group == GROUP:
        return f"the cluster has no {PLURAL}; is LMFineTune installed in it?"
    if request.resource == PLURAL and request.name:
        return f"there is no {KIND} {request.name} in namespace {request.namespace}. Look with: lmft ls -A"
    return said if status else f"the API server has no such thing: {said}"


def _conflict(request: Request, status: Mapping[str, Any], said: str) -> str:
    if status.get("reason") == "AlreadyExists":
        name = _details(status).get("name") or request.name
        where = f"in namespace {request.namespace} already"
        return f"there is a {KIND} {name} {where}; delete it first, or choose another name"
    return f"{said}. Read the run again, and look whether it is still the one that you mean"


def _problems(status: Mapping[str, Any], said: str) -> list[Problem]:
    """The problems that the server found, each with its field."""
    causes = _details(status).get("causes")
    entries = [cause for cause in causes if isinstance(cause, dict)] if isinstance(causes, list) else []
    found = [
        # "<nil>" is how the API server writes that a rule is about the whole.
        Problem(str(cause.get("field") or "").replace("<nil>", ""), str(cause.get("message") or "is invalid"))
        for cause in entries
    ]
    found += [Problem(path, "unknown field") for path in _UNKNOWN_FIELD.findall(said)]
    return list(dict.fromkeys(found)) or [Problem("", said)]


def _status(body: str) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}


def _details(status: Mapping[str, Any]) -> Mapping[str, Any]:
    details = status.get("details")
    return details if isinstance(details, dict) else {}
