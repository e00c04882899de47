"""Stands for a server of Weights & Biases, as its package takes one to be: runs by their id, lines by their number.

No real server can be run here. That this one is asked what the package asks is compared with a recording of it
(tests/fixtures/wandb).
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "k" * 40


@dataclass
class WandbRun:
    """A run as it has arrived.

    Attributes:
        begun: variables of every mutation that began or resumed it.
        lines: of its history, by their number; a later one replaces an earlier one.
    """

    begun: list[dict[str, Any]] = field(default_factory=list)
    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: str = "{}"
    ended: list[dict[str, Any]] = field(default_factory=list)

    def history(self, metric: str) -> list[tuple[int, float]]:
        """Every step and value that it has of a metric, in the order of the lines."""
        rows = [self.lines[number] for number in sorted(self.lines)]
        return [(row["train/global_step"], row[metric]) for row in rows if metric in row]


@dataclass
class WandbServer:
    """A running server."""

    uri: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, WandbRun] = field(default_factory=dict)
    away: threading.Event = field(default_factory=threading.Event)

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What a request is answered with, after what it asks for is done."""
        if path == "/graphql":
            variables = body["variables"]
            name, project = variables["name"], variables["project"]
            if body["operationName"] == "RunResumeStatus":
                return {"data": {"model": {"bucket": self._bucket(name)}}}
            self.runs.setdefault(name, WandbRun()).begun.append(variables)
            place = {"name": project, "entity": {"name": variables["entity"] or "of-the-key"}}
            return {"data": {"upsertBucket": {"bucket": {"name": name, "project": place}}}}
        run = self.runs[path.split("/")[-2]]
        for name, part in body.get("files", {}).items():
            if name == "wandb-history.jsonl":
                assert part["offset"] <= len(run.lines), "a gap"
                run.lines |= {part["offset"] + at: json.loads(line) for at, line in enumerate(part["content"])}
            else:
                [run.summary] = part["content"]
        if body.get("complete"):
            run.ended.append(body)
        return {"exitcode": None, "limits": {}}

    def _bucket(self, name: str) -> dict[str, Any] | None:
        run = self.runs.get(name)
        if run is None:
            return None
        tail = [json.dumps(run.lines[max(run.lines)])] if run.lines else []
        return {
            "name": name,
            "summaryMetrics": run.summary,
            "historyLineCount": len(run.lines),
            "historyTail": json.dumps(tail),
        }


@contextmanager
def running() -> Iterator[WandbServer]:
    """Start one; it ends with the block. While ``away`` is set it takes what comes, and does not answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.requests.append({"path": self.path, "headers": dict(self.headers), "body": body})
            answer = server.answer(self.path, body)
            while server.away.is_set():
                time.sleep(0.02)
            try:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())
            except OSError:
                return  # nobody waits for it any more

        def log_message(self, *args: object) -> None:
            return None

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = WandbServer(f"http://127.0.0.1:{http.server_port}")
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        server.away.clear()
        http.shutdown()
        http.server_close()
