"""What `helm test` asks where metrics are served over HTTPS: that the certificate holds for the progress server's name,
and that neither port answers a stranger."""

import os
import ssl
import time
import urllib.error
import urllib.request

DEADLINE = time.monotonic() + 120
UNAVAILABLE = 503


def refusal(url: str, context: ssl.SSLContext, body: bytes | None) -> int:
    """Status without a token; asks again while nothing listens yet, or what listens is starting. An untrusted
    certificate ends the test at once."""
    while True:
        try:
            with urllib.request.urlopen(url, body, timeout=10, context=context) as response:  # noqa: S310 - our URLs
                return response.status
        except urllib.error.HTTPError as answer:
            if answer.code != UNAVAILABLE or time.monotonic() > DEADLINE:
                return answer.code
            time.sleep(2)
        except OSError as problem:
            untrusted = isinstance(getattr(problem, "reason", None), ssl.SSLCertVerificationError)
            if untrusted or time.monotonic() > DEADLINE:
                raise SystemExit(f"{url}: {problem}") from problem
            time.sleep(2)


def refused(what: str, url: str, body: bytes | None = None, *, named: bool = True) -> None:
    """End the test unless a stranger is refused over a connection that can be trusted."""
    context = ssl.create_default_context(cafile=os.environ["PROGRESS_CA"])
    context.check_hostname = named
    status = refusal(url, context, body)
    if status not in {401, 403}:
        raise SystemExit(f"{what} without a token was not refused: {status}")
    print(f"{what}: certificate holds, strangers are refused")


# The certificate names the progress server; who asks for metrics says that name (serverName), urllib cannot.
refused("metrics", os.environ["METRICS_URL"] + "/metrics", named=False)
if progress := os.environ.get("PROGRESS_URL"):
    refused("progress", progress, b"{}")
