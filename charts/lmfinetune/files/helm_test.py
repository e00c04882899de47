"""What `helm test` asks: metrics, to which a Service leads as soon as the operator is ready, and that the progress
server's certificate holds for its name."""

import os
import ssl
import time
import urllib.error
import urllib.request

DEADLINE = time.monotonic() + 120
UNAVAILABLE = 503


def answer(url: str, context: ssl.SSLContext | None = None, body: bytes | None = None) -> tuple[int, str]:
    """Status and body; asks again while nothing listens yet, or what listens is starting. An untrusted certificate ends
    the test at once."""
    while True:
        try:
            with urllib.request.urlopen(url, body, timeout=10, context=context) as response:  # noqa: S310 - our URLs
                return response.status, response.read().decode()
        except urllib.error.HTTPError as refusal:
            if refusal.code != UNAVAILABLE or time.monotonic() > DEADLINE:
                return refusal.code, refusal.read().decode()
            time.sleep(2)
        except OSError as problem:
            untrusted = isinstance(getattr(problem, "reason", None), ssl.SSLCertVerificationError)
            if untrusted or time.monotonic() > DEADLINE:
                raise SystemExit(f"{url}: {problem}") from problem
            time.sleep(2)


metrics = os.environ["METRICS_URL"]
status, body = answer(f"{metrics}/metrics")
if status != 200 or "# TYPE" not in body:
    raise SystemExit(f"no metrics: {status} {body[:200]}")
print(f"metrics: {body.count('# TYPE')} families")

if progress := os.environ.get("PROGRESS_URL"):
    status, body = answer(progress, ssl.create_default_context(cafile=os.environ["PROGRESS_CA"]), b"{}")
    if status not in {401, 403}:
        raise SystemExit(f"progress without a token was not refused: {status} {body[:200]}")
    print("progress: certificate holds, strangers are refused")
