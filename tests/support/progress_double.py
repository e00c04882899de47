"""A server that takes reports of progress, as the operator's does."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def server(status: int = 200, silent: threading.Event | None = None) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that takes reports; with ``silent`` it accepts and does not answer until the event is set."""
    taken: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            taken.append({"body": body, "authorization": self.headers.get("Authorization"), "time": time.monotonic()})
            if silent is not None:
                silent.wait(30)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            return None

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/progress", taken
    finally:
        if silent is not None:
            silent.set()
        http.shutdown()
        http.server_close()
