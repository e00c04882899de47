"""One model type for one task: a run of the real recipe, and its figures once more."""

import json
import math
import os
import signal
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.forked import attempt, run_folder, toy_spec
from sweep.independent import figures, require_the_same_again
from sweep.tiny import tiny

TOLERANCE = 1e-5
_SECONDS = 100
_SEED = 42


@dataclass(frozen=True)
class Verdict:
    """How it went.

    Attributes:
        outcome: ``equal`` (trained, figures equal), ``refused`` (before the data was prepared), else what is wrong:
            ``differs``, ``late`` (refused after the data was prepared), ``failed``.
        words: what was said, or the figures.
    """

    outcome: str
    words: str = ""


def try_type(task: str, kind: str, home: Path) -> Verdict:
    """Train it from a tiny configuration, in a forked child."""
    try:
        config = tiny(kind)
    except Exception as error:  # noqa: BLE001 - of whatever code transformers runs
        return Verdict("failed", f"no tiny configuration: {error}")
    spec = toy_spec(
        home, task, model={"fromConfig": config}, training={"maxSteps": 3, "learningRate": "5e-3"},
        checkpoint={"everySteps": 1000},
    )  # fmt: skip
    spec["training"].pop("epochs")
    child = attempt(home, spec, patch=_watch_for_data)
    code = child.wait()
    result = child.result if child.said("result ") else {"message": child.log.read_text()[-500:]}
    message = str(result.get("message"))
    if code == 2 and not child.said("prepared"):
        return Verdict("refused", message)
    if code:
        return Verdict("late" if code == 2 else "failed", f"exit {code}: {message}")
    report = json.loads((run_folder(home) / "report.json").read_text())
    data = home / "cache" / "prepared" / report["dataset"]["fingerprint"]
    return _compare(task, run_folder(home) / "model", data, report["results"], home)


def _watch_for_data(teller: Any) -> None:
    """Tell when a prepared data set is opened, and do not take longer than it may."""
    from lmft_job.data import prepared

    signal.alarm(_SECONDS)
    opened = prepared._open

    def tell(*args: Any, **options: Any) -> Any:
        teller.tell("prepared")
        return opened(*args, **options)

    prepared._open = tell


def _compare(task: str, model: Path, data: Path, results: dict[str, Any], home: Path) -> Verdict:
    """In a process that the run has not touched."""
    answer = home / "independent.json"
    pid = os.fork()
    if not pid:
        try:
            signal.alarm(_SECONDS)
            try:
                found = figures(task, model, data, _SEED)
                [state] = (model.parent / "checkpoints").rglob("trainer_state.json")
                require_the_same_again(task, model, state.parent)
                answer.write_text(json.dumps(found))
            except Exception as error:  # noqa: BLE001 - is the verdict
                traceback.print_exc(file=(home / "independent.log").open("w"))
                lines = traceback.format_exc(limit=-2).strip().splitlines()
                answer.write_text(json.dumps({"error": f"{error} ({lines[-2].strip()})"}))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    found = json.loads(answer.read_text()) if answer.exists() else {"error": "no answer in time"}
    if "error" in found:
        return Verdict("differs", f"the published folder: {found['error']}")
    pairs = [("loss", results["evalLoss"])] + ([("accuracy", results["accuracy"])] if "accuracy" in found else [])
    words = ", ".join(f"{name} {said:.6f} and {found[name]:.6f}" for name, said in pairs)
    equal = all(math.isclose(said, found[name], abs_tol=TOLERANCE) for name, said in pairs)
    return Verdict("equal" if equal else "differs", words)
