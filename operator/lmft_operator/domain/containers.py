"""Which container of a pod is ours, and what the others mean for it. Plain JSON in; no I/O.

Admission adds containers to pods: service meshes, log shippers, vaults. Ours is found by its name, at any position.
"""

import json
from collections.abc import Mapping
from typing import Any

from lmft_api.wire.run_file import CONTAINER, RUN_ANNOTATION, json_hash

JsonObject = Mapping[str, Any]
_NONE: JsonObject = {}


def named(containers: Any) -> JsonObject:
    """Our container, or its status, among a pod's containers."""
    return next((container for container in containers if container.get("name") == CONTAINER), _NONE)


def running_others(statuses: Any) -> str:
    """Names of the other containers that are running."""
    others = (status for status in statuses if status.get("name") != CONTAINER)
    return ", ".join(str(status.get("name")) for status in others if status.get("state", {}).get("running"))


def gpus(container: JsonObject) -> int:
    """Sum of a container's extended resources: those with a domain in their names, such as nvidia.com/gpu."""
    limits = container.get("resources", {}).get("limits", {})
    amounts = (str(amount) for name, amount in limits.items() if "/" in name)
    return sum(int(amount) for amount in amounts if amount.isdecimal() and len(amount) < 7)


def blocked_init(inits: Any) -> JsonObject:
    """Reason and message of the init container that cannot start or restart; empty when none blocks the pod."""
    for status in inits:
        waiting: JsonObject = status.get("state", {}).get("waiting", {})
        if waiting.get("reason", "PodInitializing") in ("PodInitializing", "ContainerCreating"):
            continue
        last = status.get("lastState", {}).get("terminated", {})
        words = [waiting.get("message", ""), _ended_words(last) if last else ""]
        return {
            "reason": waiting["reason"],
            "message": f"init container {status.get('name')}: {'; '.join(filter(None, words))}".rstrip(": "),
        }
    return _NONE


def failed_init(inits: Any, specs: Any) -> str:
    """Message about the init container whose failure ended the pod; restartable ones never end it."""
    sidecars = {spec.get("name") for spec in specs if spec.get("restartPolicy") == "Always"}
    for status in inits:
        ended: JsonObject = status.get("state", {}).get("terminated", {})
        if ended.get("exitCode") and status.get("name") not in sidecars:
            return f"Init container {status.get('name')}, which is not LMFineTune's, {_ended_words(ended)}"
    return ""


def _ended_words(ended: JsonObject) -> str:
    cause = f" ({ended['reason']})" if ended.get("reason") not in (None, "", "Error", "Completed") else ""
    words = str(ended.get("message", "")).strip()
    return f"exited with code {ended.get('exitCode')}{cause}" + (f": {words}" if words else "")


def spec_hash(annotations: JsonObject) -> str:
    """Hash of the spec in the run file among a pod's annotations; empty where it cannot be read."""
    try:
        return json_hash(json.loads(annotations[RUN_ANNOTATION])["spec"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return ""
