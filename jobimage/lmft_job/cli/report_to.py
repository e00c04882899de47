"""``lmft report-to``: what trackers lack of a run's metrics, sent after its end from the run's folder."""

import sys
import tempfile
import time
import uuid
from pathlib import Path

from lmft_api.addresses import in_storage
from lmft_api.reasons import ExitCode
from lmft_api.schema.patterns import PATTERN_HINTS, TRACKER_URI_PATTERN, finds
from lmft_api.spec import Wandb
from lmft_api.text.shown import one_line
from lmft_api.text.times import seconds
from lmft_api.wire.layout import METRICS
from lmft_api.wire.report import Report
from lmft_job.attempt.result import stored_report
from lmft_job.cli.compare.runs import folder_of_run
from lmft_job.errors import InterruptedRunError, InvalidError, JobError
from lmft_job.storage import Store, open_store
from lmft_job.trackers.record import Record, read_record
from lmft_job.trackers.rest import send_rest
from lmft_job.trackers.servers.keys import keys_in
from lmft_job.trackers.servers.mlflow import Mlflow
from lmft_job.trackers.servers.wandb import WeightsAndBiases
from lmft_job.trackers.tracker import RunCard, Tracker, TrackerError


def report_to(place: str, mlflow: str | None, wandb: str | None, *, unfinished: bool) -> int:
    """Send to the trackers at these addresses; returns the exit code. An attempt that runs sends by itself.

    The addresses are the caller's and never the folder's: whoever may write there could be sent the caller's keys.
    """
    try:
        _require_addresses({"--mlflow": mlflow, "--wandb": wandb})
        address = place if in_storage(place) else f"file://{folder_of_run(place)}"
        store = open_store(address.rstrip("/"))
        _require_metrics(store)
        report = stored_report(store)
        if report is None and not unfinished:
            words = "has not finished; the attempt that resumes it sends what is missing, or, if there will be none:"
            raise InvalidError([f"{store.url('')}: the run {words} --unfinished"])
        return _report(store, report, mlflow, wandb)
    except InvalidError as error:
        for problem in error.problems:
            print(one_line(problem), file=sys.stderr)
        return ExitCode.INVALID
    except JobError as error:
        print(one_line(str(error)), file=sys.stderr)
        return error.exit_code


def _require_addresses(given: dict[str, str | None]) -> None:
    addresses = {option: address for option, address in given.items() if address is not None}
    if not addresses:
        raise InvalidError(["name the tracker: --mlflow https://mlflow.example.com, or --wandb https://api.wandb.ai"])
    problems = [
        f"{option}: {PATTERN_HINTS[TRACKER_URI_PATTERN]}"
        for option, address in addresses.items()
        if not finds(TRACKER_URI_PATTERN, address)
    ]
    if problems:
        raise InvalidError(problems)


def _require_metrics(store: Store) -> None:
    if not any(item.key == METRICS for item in store.list(METRICS)):
        raise InvalidError([f"{store.url(METRICS)}: there is none; is it the folder of a run?"])


def _report(store: Store, report: Report | None, mlflow: str | None, wandb: str | None) -> int:
    record = read_record(store) or _record_of(report, store)
    namespace = record.card.tags.get("lmfinetune.dev/namespace", "default")
    keys = keys_in(None, in_pod=False)
    trackers = list[Tracker]()
    if mlflow is not None:
        trackers.append(Mlflow(mlflow, record.experiment or namespace, record.card, keys))
    if wandb is not None:
        wanted = Wandb.model_construct(project=record.project, entity=record.entity, url=wandb)
        trackers.append(WeightsAndBiases(wanted, record.card, keys, namespace))
    with tempfile.TemporaryDirectory(prefix="lmft-report-to-") as folder:
        path = Path(folder) / METRICS
        store.get_file(METRICS, path)
        when = (seconds(report.finished) if report is not None else None) or time.time()
        error = None if report is not None else InterruptedRunError("the run has not finished")
        return max(_send(tracker, path, when, error) for tracker in trackers)


def _send(tracker: Tracker, path: Path, when: float, error: BaseException | None) -> int:
    try:
        sent = send_rest(tracker, path, when, error)
    except TrackerError as problem:
        print(one_line(f"{tracker.name}: {problem}; run the command again, what has been taken stays"), file=sys.stderr)
        return ExitCode.UNAVAILABLE
    print(one_line(f"{tracker.name}: {sent} steps and evaluations sent" if sent else f"{tracker.name} had all of it"))
    return ExitCode.DONE


def _record_of(report: Report | None, store: Store) -> Record:
    """Of a run that has reported to no server: its id is always the same one of its address."""
    if report is None:
        raise InvalidError([f"{store.url('')}: no run there that has finished, or reported to a tracker"])
    params = {name: value for name, value in report.settings.items() if not name.startswith("sample.")}
    tags = {"lmfinetune.dev/namespace": report.namespace, "lmfinetune.dev/folder": store.url("")}
    shown = {name: value if isinstance(value, str | int | float) else str(value) for name, value in params.items()}
    return Record(RunCard(str(uuid.uuid5(uuid.NAMESPACE_URL, store.url(""))), report.name, shown, tags))
