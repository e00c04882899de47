"""A stand-in for the API server, for commands about runs: what it keeps is given, what is asked of it is noted."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.kubeconfig import kubeconfig


class ApiServer(ThreadingHTTPServer):
    """Keeps resources by path, and what was asked of it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.objects: dict[str, Any] = {}
        self.asked: list[tuple[str, str, Any]] = []


class Answer(BaseHTTPRequestHandler):
    def answer(self) -> None:
        server = self.server
        assert isinstance(server, ApiServer)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        server.asked.append((self.command, self.path, json.loads(body) if body else None))
        found = server.objects.get(path)
        data = found if isinstance(found, bytes) else json.dumps(found or {"kind": "Status", "message": "no"}).encode()
        self.send_response(200 if found is not None else 404)
        self.send_header("Content-Type", "text/plain" if isinstance(found, bytes) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PATCH = do_DELETE = answer

    def log_message(self, *words: object) -> None:
        """Not into the test's output."""


@contextmanager
def serving(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """The stand-in, which the kubeconfig of this process means meanwhile."""
    with ApiServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        (folder / "config").write_text(kubeconfig(f"http://127.0.0.1:{server.server_port}"))
        monkeypatch.setenv("KUBECONFIG", str(folder / "config"))
        yield server
        server.shutdown()


def resource(name: str, status: Any = None, namespace: str = "team-a") -> dict[str, Any]:
    """An LMFineTune as the API server answers with it."""
    return {"metadata": {"name": name, "namespace": namespace, "uid": name}, "status": status or {}}


def ended(succeeded: bool, reason: str, **more: Any) -> dict[str, Any]:
    """The status of a run that has ended."""
    condition = {"status": "True" if succeeded else "False", "reason": reason, "message": "what it says"}
    times = {"lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {"conditions": [{"type": "Succeeded", **condition, **times}], **more}
