"""Reads through one `kubectl proxy`: a kubectl for every look would take the cores from the runs."""

import atexit
import json
import os
import subprocess
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

RESOURCES = {
    "lmft": "/apis/lmfinetune.dev/v1alpha1/namespaces/{}/lmfinetunes",
    "jobs": "/apis/batch/v1/namespaces/{}/jobs",
    "pods": "/api/v1/namespaces/{}/pods",
}
Json = dict[str, Any]


class Reader:
    """Any number of threads may read at a time; the proxy ends with this process."""

    def __init__(self, kubectl: str, kubeconfig: str) -> None:
        environment = os.environ | {"KUBECONFIG": kubeconfig}
        command = [kubectl, "proxy", "--port=0"]
        proxy = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        atexit.register(proxy.terminate)
        assert proxy.stdout is not None
        said = proxy.stdout.readline()
        assert "Starting to serve on " in said, f"kubectl proxy: {said}"
        self._address = "http://" + said.split()[-1]
        self._opener = build_opener(ProxyHandler({}))

    def get(self, resource: str, namespace: str, name: str) -> Json:
        """An object; empty when it does not exist."""
        return self._read(f"{RESOURCES[resource].format(namespace)}/{name}")

    def list(self, resource: str, namespace: str, selector: str) -> list[Json]:
        """The objects with certain labels."""
        query = urlencode({"labelSelector": selector})
        items: list[Json] = self._read(f"{RESOURCES[resource].format(namespace)}?{query}").get("items", [])
        return items

    def _read(self, path: str) -> Json:
        try:
            with self._opener.open(self._address + path, timeout=30) as answer:
                found: Json = json.load(answer)
        except HTTPError as refusal:
            if refusal.code == 404:
                return {}
            raise AssertionError(f"GET {path}: {refusal.code} {refusal.read().decode()[:500]}") from refusal
        except URLError as problem:
            raise AssertionError(f"GET {path}: {problem}") from problem
        return found
