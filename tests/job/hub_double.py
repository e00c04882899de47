"""A stand-in for the hub's HTTP answers: it says no in every way that matters. It serves no models."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ERROR_CODES = {401: "RepoNotFound", 403: "GatedRepo", 404: "RepoNotFound"}


class _Answers(BaseHTTPRequestHandler):
    """``/api/models/answer/503`` and everything about that repository is answered 503."""

    def do_GET(self) -> None:
        """Answer by the number in the path."""
        numbers = [part for part in self.path.replace("?", "/").split("/") if part.isdigit() and len(part) == 3]
        status = int(numbers[0]) if numbers else 404
        body = json.dumps({"error": f"double: {status}"}).encode()
        self.send_response(status)
        if status in ERROR_CODES:
            self.send_header("X-Error-Code", ERROR_CODES[status])
        if "revision" in self.path and "lost" in self.path:
            self.send_header("X-Error-Code", "RevisionNotFound")
        self.send_header("X-Error-Message", f"double: {status}")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests read their own output."""


@contextmanager
def hub_double() -> Iterator[str]:
    """The double's address, for HF_ENDPOINT."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
