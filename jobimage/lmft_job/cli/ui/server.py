"""The server of ``lmft ui``: this machine alone, read-only, for those who have its address with the token.

A web page anywhere can make a browser send requests to this machine, under any host name that it points here (DNS
rebinding). So a request needs the token (once in the address, then as a cookie that is not sent along from other
sites), and names this machine as its host; nothing but GET is answered.
"""

import hmac
import secrets
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from lmft import LMFineTuneError
from lmft_api.text.shown import one_line
from lmft_job.cli.ui import pages
from lmft_job.cli.ui.source import Source, chosen
from lmft_job.errors import JobError
from lmft_job.report.page import render_page

COOKIE = "lmft_ui"
_SECONDS = 10
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Server(ThreadingHTTPServer):
    """Answers with the runs of a source."""

    daemon_threads = True

    def __init__(self, source: Source, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Answer)
        self.source = source
        self.token = secrets.token_urlsafe(24)

    @property
    def address(self) -> str:
        """With the token: whoever has it may read."""
        return f"http://127.0.0.1:{self.server_port}/?token={self.token}"

    @property
    def hosts(self) -> set[str]:
        """Names under which this machine is meant."""
        return {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}


class _Answer(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "lmft", ""
    timeout = _SECONDS

    def do_GET(self) -> None:
        """See the module."""
        if self.headers.get("Host") not in self.server.hosts:
            return self._say(HTTPStatus.MISDIRECTED_REQUEST, "Another host", "Open the address that lmft ui printed.")
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        if self._is_token(query.get("token", [""])[0]):
            # The token leaves the address bar, and with it the history and what is copied from there.
            self.send_response(HTTPStatus.SEE_OTHER)
            self.send_header("Location", "/" + address.path.lstrip("/"))  # two slashes would name another host
            self.send_header("Set-Cookie", f"{COOKIE}={self.server.token}; HttpOnly; SameSite=Strict; Path=/")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if not self._is_token(self._cookie()):
            return self._say(HTTPStatus.FORBIDDEN, "No token", "Open the address that lmft ui printed.")
        try:
            status, page = self._page([unquote(part) for part in address.path.split("/")[1:]], query)
        except (JobError, LMFineTuneError) as error:
            return self._say(HTTPStatus.BAD_GATEWAY, "The runs cannot be read", str(error))
        return self._send(status, page)

    def _page(self, path: list[str], query: dict[str, list[str]]) -> tuple[HTTPStatus, bytes]:
        source = self.server.source
        match path:
            case [""]:
                return HTTPStatus.OK, pages.list_page(source.rows(), source.where)
            case ["compare"]:
                reports = chosen(source, query.get("run", []))
                if len(reports) < 2:
                    words = "Choose at least two runs that have finished."
                    return HTTPStatus.BAD_REQUEST, pages.message_page("Nothing to compare", words)
                return HTTPStatus.OK, pages.compare_page(reports)
            case ["run", namespace, name]:
                run = source.run(namespace, name)
                if run is not None and run.report is not None:
                    return HTTPStatus.OK, render_page(run.report, run.curve)
                if run is not None:
                    return HTTPStatus.OK, pages.run_page(run)
        return HTTPStatus.NOT_FOUND, pages.message_page("Not found", "There is no such run.")

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(errors="replace"), self.server.token.encode())

    def _cookie(self) -> str:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
        except CookieError:
            return ""
        return found.value if found else ""

    def _say(self, status: HTTPStatus, title: str, words: str) -> None:
        self._send(status, pages.message_page(title, one_line(words)))

    def _send(self, status: HTTPStatus, page: bytes) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        """Not on the terminal: addresses may hold the token."""
