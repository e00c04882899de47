"""A stand-in for the hub's HTTP answers: it says no in every way that matters. It serves no models."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ERROR_CODES = {401: "RepoNotFound", 403: "GatedRepo", 404: "RepoNotFound"}


class _Answers(BaseHTTPRequestHandler):
    """``/api/models/answer/503`` and everything about that repository is answered 503."""

    seen: list[str]

    def do_GET(self) -> None:
        """Answer by the number in the path."""
        self.seen.append(self.path)
        numbers = [part for part in self.path.replace("?", "/").split("/") if part.isdigit() and len(part) == 3]
        status = int(numbers[0]) if numbers else 404
        body = json.dumps({"error": f"double: {status}"}).encode()
        self.send_response(status)
        lost = "revision" in self.path and "lost" in self.path
        if status in ERROR_CODES:
            self.send_header("X-Error-Code", "RevisionNotFound" if lost else ERROR_CODES[status])
        self.send_header("X-Error-Message", f"double: {status}")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests read their own output."""


@dataclass(frozen=True)
class Hub:
    """Address for HF_ENDPOINT, and the paths that were asked for."""

    address: str
    seen: list[str]


@contextmanager
def hub_double() -> Iterator[Hub]:
    """The double, running."""
    seen: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (_Answers,), {"seen": seen}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield Hub(f"http://127.0.0.1:{server.server_port}", seen)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
