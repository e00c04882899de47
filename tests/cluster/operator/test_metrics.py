"""Metrics over HTTPS on a real API server: its tokens, its reviews, its rights."""

import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from cluster.eventually import eventually
from cluster.operator.conftest import SETTINGS
from cluster.operator.plane import ROOT, Api, Json
from cluster.operator.reporting import HOST, Reporting

from lmft_api.wire.run_file import TOKEN_AUDIENCE
from lmft_operator.tokens.authorization import REFUSED_SECONDS

RBAC = "/apis/rbac.authorization.k8s.io/v1"
ROLE = "lmft-metrics-reader"
HELM_TEST = ROOT / "charts/lmfinetune/files/helm_test_secure.py"


@pytest.fixture(scope="module")
def reporting(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reporting]:
    folder = tmp_path_factory.mktemp("metrics")
    reporting = Reporting.start(folder, api.kubeconfig, SETTINGS | {"metrics": {"secure": True}})
    yield reporting
    assert reporting.operator.stop() < 10
    assert "Traceback" not in reporting.operator.log.read_text()


@dataclass
class Account:
    """A service account of a fresh namespace."""

    api: Api
    namespace: str

    def token(self, *audiences: str) -> str:
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/default/token"
        answer = self.api.call("POST", path, {"spec": {"audiences": list(audiences)} if audiences else {}})
        return str(answer["status"]["token"])

    def subject(self) -> Json:
        return {"kind": "ServiceAccount", "name": "default", "namespace": self.namespace}

    def bind(self) -> None:
        """Give it the right."""
        binding = {"metadata": {"name": self.namespace}, "subjects": [self.subject()]}
        binding["roleRef"] = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE}
        self.api.call("POST", f"{RBAC}/clusterrolebindings", binding)


@pytest.fixture(scope="module")
def reader(api: Api) -> Account:
    """An account with the right that the chart's role gives."""
    rules = [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
    api.call("POST", f"{RBAC}/clusterroles", {"metadata": {"name": ROLE}, "rules": rules})
    account = Account(api, api.namespace())
    account.bind()
    return account


def scrape(reporting: Reporting, token: str | None, scheme: str = "https") -> tuple[int, str]:
    """Status and text; 0 when the connection fails."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{scheme}://{HOST}:{reporting.operator.metrics_port}/metrics", headers=headers)
    context = ssl.create_default_context(cafile=str(reporting.folder / "ca.crt"))
    try:
        with urllib.request.urlopen(request, context=context, timeout=20) as answer:
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()
    except OSError:
        return 0, ""


def reviews(text: str, resource: str) -> float:
    """How many of them the API server answered, by the operator's own metric."""
    wanted = f'lmft_api_requests_total{{code="201",resource="{resource}",verb="POST"}}'
    return next(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(wanted))


def test_an_account_with_the_right_reads_and_is_reviewed_once(reporting: Reporting, reader: Account) -> None:
    token = reader.token()
    status, text = eventually(lambda: (found := scrape(reporting, token))[0] == 200 and found, "an answer")
    assert (status, "lmft_leader 1.0" in text) == (200, True)
    before = reviews(text, "tokenreviews"), reviews(text, "subjectaccessreviews")
    for _ in range(10):
        status, text = scrape(reporting, token)
        assert status == 200
    assert (reviews(text, "tokenreviews"), reviews(text, "subjectaccessreviews")) == before


def test_everybody_else_is_refused(reporting: Reporting, reader: Account, api: Api) -> None:
    head, claims, _ = reader.token().split(".")
    assert scrape(reporting, None)[0] == 401
    assert scrape(reporting, "not.a.token")[0] == 401
    assert scrape(reporting, f"{head}.{claims}.c2lnbmF0dXJl")[0] == 401
    assert scrape(reporting, reader.token(TOKEN_AUDIENCE))[0] == 401, "what pods of runs report with"
    time.sleep(3)  # unknown tokens of an address have had their burst
    status, text = scrape(reporting, Account(api, api.namespace()).token())
    assert (status, text) == (403, "the token's user may not get the path /metrics\n")
    assert scrape(reporting, reader.token(), scheme="http")[0] == 0


def test_a_right_that_is_given_holds_soon(reporting: Reporting, reader: Account, api: Api) -> None:
    account = Account(api, api.namespace())
    token = account.token()
    eventually(lambda: scrape(reporting, token)[0] == 403, "a refusal")
    account.bind()
    eventually(lambda: scrape(reporting, token)[0] == 200, "an answer", REFUSED_SECONDS + 15)


def test_the_charts_test_finds_the_certificate_good_and_strangers_refused(reporting: Reporting) -> None:
    environment = os.environ | {
        "METRICS_URL": f"https://{HOST}:{reporting.operator.metrics_port}",
        "PROGRESS_URL": f"https://{HOST}:{reporting.port}",
        "PROGRESS_CA": str(reporting.folder / "ca.crt"),
    }
    done = subprocess.run([sys.executable, HELM_TEST], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [f"{what}: certificate holds, strangers are refused" for what in ("metrics", "progress")],
    )


def test_the_log_names_no_token(reporting: Reporting, reader: Account) -> None:
    token = reader.token()
    scrape(reporting, token)
    assert token.rpartition(".")[2] not in reporting.operator.log.read_text()
