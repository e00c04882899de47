"""How many processes this pod runs, and its place among the pods of its attempt. Imports nothing heavy."""

import argparse
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmft_api.wire import ranks
from lmft_api.wire.run_file import KUBERNETES_GRACE_SECONDS, RUN_FILE, SECRETS_FOLDER, TERMINATION_LOG, Stage
from lmft_job.errors import InvalidError


@dataclass(frozen=True)
class PodPlan:
    """A pod that runs one of several processes, or several.

    Attributes:
        nodes: pods of the attempt.
        index: number of this one, from 0.
        per_node: processes of each pod.
        address: name or address of the first pod.
        port: where the processes meet; None for any port that is free, in a pod without others.
        run: UID of the run.
        attempt: number of the attempt.
        pod: name of this pod, for messages.
        node: name of its node, for messages.
        grace: seconds from SIGTERM to SIGKILL.
        rendezvous: seconds from the container's start for which the others are waited for.
    """

    nodes: int
    index: int
    per_node: int
    address: str = "127.0.0.1"
    port: int | None = None
    run: str = ""
    attempt: int = 1
    pod: str = ""
    node: str = ""
    grace: float = KUBERNETES_GRACE_SECONDS
    rendezvous: float = ranks.RENDEZVOUS_SECONDS

    @property
    def heartbeats(self) -> int:
        """Port of the first pod for heartbeats."""
        return ranks.heartbeat_port(self.port or ranks.DEFAULT_MASTER_PORT)

    @property
    def probe(self) -> int:
        """Port of the first pod that stands for all others."""
        return ranks.probe_port(self.port or ranks.DEFAULT_MASTER_PORT)

    @property
    def first_rank(self) -> int:
        """Number of this pod's first rank among all."""
        return self.index * self.per_node


def options_of(arguments: list[str]) -> argparse.Namespace:
    """Where things lie in the container, or where a test put them."""
    parser = argparse.ArgumentParser(prog="lmft-job", description="Run one attempt of an LMFineTune.")
    parser.add_argument("--run-file", type=Path, default=Path(RUN_FILE))
    parser.add_argument("--termination-log", type=Path, default=Path(TERMINATION_LOG))
    parser.add_argument("--secrets", type=Path, default=Path(SECRETS_FOLDER))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "lmft")
    return parser.parse_args(arguments)


def plan_of(run_file: Path, environment: Mapping[str, str] = os.environ) -> PodPlan | None:
    """The plan of this pod; None where this process is the only one, or is a rank already.

    A run file that cannot be read is left to the process that runs it, which says what is wrong.

    Raises:
        InvalidError: the environment names no valid place among the pods; every problem is listed.
    """
    if ranks.is_rank(environment):
        return None
    try:
        file = json.loads(run_file.read_bytes())
        resources = file["spec"].get("resources") or {}
        per_node = max(1, int(resources.get("gpusPerNode") or 0))
        nodes = int(environment.get(ranks.NODES_VARIABLE) or resources.get("nodes") or 1)
        alone = file.get("stage") == Stage.PREPARE or nodes * per_node <= 1
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return None if alone else _plan(file, nodes, per_node, environment)


def _plan(file: dict[str, Any], nodes: int, per_node: int, environment: Mapping[str, str]) -> PodPlan:
    problems: list[str] = []

    def number(name: str, default: int | None, least: int, most: int) -> int:
        text = environment.get(name, "")
        if not text and default is not None:
            return default
        if text.isascii() and text.isdecimal() and least <= int(text) <= most:
            return int(text)
        problems.append(f"{name}: is {text!r}, and must be a whole number from {least} to {most}; the operator sets it")
        return least

    several = nodes > 1
    index = number(ranks.INDEX_VARIABLE, None if several else 0, 0, nodes - 1) if several else 0
    given = several or ranks.MASTER_PORT in environment
    port = number(ranks.MASTER_PORT, ranks.DEFAULT_MASTER_PORT, 1, 65533) if given else None
    seconds = number(ranks.RENDEZVOUS_VARIABLE, int(ranks.RENDEZVOUS_SECONDS), 1, 86_400)
    address = environment.get(ranks.MASTER_ADDR, "") if several else "127.0.0.1"
    if not address:
        problems.append(f"{ranks.MASTER_ADDR}: is not set; the operator sets it to the name of the first pod")
    if problems:
        raise InvalidError(problems)
    grace = file.get("graceSeconds")
    return PodPlan(
        nodes=nodes,
        index=index,
        per_node=per_node,
        address=address,
        port=port,
        run=str(file.get("uid", "")),
        attempt=file["attempt"] if isinstance(file.get("attempt"), int) else 1,
        pod=environment.get(ranks.POD_NAME_VARIABLE) or environment.get("HOSTNAME", ""),
        node=environment.get(ranks.NODE_NAME_VARIABLE, ""),
        grace=float(grace) if isinstance(grace, int) and grace > 0 else KUBERNETES_GRACE_SECONDS,
        rendezvous=float(seconds),
    )
