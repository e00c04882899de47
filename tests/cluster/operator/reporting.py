"""An operator that takes reports, and the pods' side of it: HTTPS with an authority and a bound token."""

import json
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.eventually import eventually
from cluster.operator.plane import Json, Operator, bracketed
from cluster.ports import free_port

HOST = "localhost"


def authority(folder: Path) -> None:
    """A certificate authority of one's own: ``ca.crt`` and ``ca.key``."""
    _openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=test-ca",
             "-addext", "basicConstraints=critical,CA:TRUE",
             "-keyout", folder / "ca.key", "-out", folder / "ca.crt")  # fmt: skip


def certificate(folder: Path, host: str = HOST) -> None:
    """A serving certificate under it, ``tls.crt`` and ``tls.key``; another one each time."""
    _openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={host}", "-keyout", folder / "new.key",
             "-out", folder / "new.csr")  # fmt: skip
    (folder / "names").write_text(f"subjectAltName={'IP' if ':' in host else 'DNS'}:{host}")
    signer = ("-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial")
    _openssl("x509", "-req", "-days", "9", "-in", folder / "new.csr", *signer, "-extfile", folder / "names",
             "-out", folder / "new.crt")  # fmt: skip
    for name in ("crt", "key"):
        (folder / f"new.{name}").replace(folder / f"tls.{name}")


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@dataclass
class Reporting:
    """An operator with a progress server."""

    operator: Operator
    folder: Path
    port: int
    host: str = HOST
    """What the pods call it."""

    @classmethod
    def start(
        cls,
        folder: Path,
        kubeconfig: Path,
        settings: Json,
        name: str = "operator",
        host: str = HOST,
        **progress: object,
    ) -> "Reporting":
        if not (folder / "ca.crt").exists():
            authority(folder)
        certificate(folder, host)
        port = free_port()
        files = {"certFile": "tls.crt", "keyFile": "tls.key", "caFile": "ca.crt"}
        on = "127.0.0.1" if host == HOST else host
        listen = "" if ":" in on else on
        section = {"url": f"https://{bracketed(host)}:{port}", "host": listen, "port": port, **progress}
        section |= {name: str(folder / file) for name, file in files.items()}
        operator = Operator(folder, kubeconfig, free_port(), settings | {"progress": section}, name=name, host=on)
        found = cls(operator.start(), folder, port, host)
        eventually(lambda: found.post(None) == 401, "a progress server")
        return found

    def post(self, token: str | None, message: object = None, raw: bytes | None = None) -> int:
        """Status of a report; 0 when the connection fails."""
        body = raw if raw is not None else json.dumps(message if message is not None else report()).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        request = urllib.request.Request(f"https://{bracketed(self.host)}:{self.port}/", data=body, headers=headers)
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        try:
            with urllib.request.urlopen(request, context=context, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refusal:
            return refusal.code
        except OSError:
            return 0

    def told(self, token: str, **metrics: object) -> None:
        """Send a report until it is taken: the operator may not know the pod yet, or has just heard of it."""
        eventually(lambda: self.post(token, report(**metrics)) == 200, "a report that is taken")

    def counted(self, outcome: str) -> float:
        """Reports with an outcome, by the operator's own metric."""
        return self.counter("lmft_progress_reports_total", outcome=outcome)

    def counter(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples that carry these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in self.operator.metrics().splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in wanted))

    def serial(self) -> str:
        """The certificate that a new connection is shown."""
        return ssl.get_server_certificate(("127.0.0.1", self.port))


def report(percentage: int = 11, **metrics: object) -> Mapping[str, object]:
    """A report in the Trainer's format."""
    figures = {"current_step": 1, "total_steps": 9} | metrics
    return {
        "trainerStatus": {
            "progressPercentage": percentage,
            "estimatedRemainingSeconds": 60,
            "metrics": [{"name": name, "value": str(value)} for name, value in figures.items()],
            "lastUpdatedTime": "2026-01-01T00:00:00Z",
        }
    }
