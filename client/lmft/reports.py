"""The report of a finished run, read from S3 with the user's own AWS settings (AWS_*, ~/.aws)."""

from typing import Any

from pydantic import ValidationError

from lmft.display.report import report_card
from lmft.errors import ReportUnavailable
from lmft.runs import Run
from lmft_api.wire.layout import PAGE, REPORT
from lmft_api.wire.report import Report

MAX_BYTES = 64 << 20
_SCHEME = "s3://"


class RunReport(Report):
    """``report.json`` of a run: figures with their standard errors, samples, settings, provenance."""

    def _repr_html_(self) -> str:
        return report_card(self)


def read_report(run: Run) -> RunReport:
    """The report of a run.

    Raises:
        ReportUnavailable: it has none yet, or it cannot be read from here.
    """
    address = run.results.report_uri if run.results else None
    place = f"{run.namespace}/{run.name}"
    if address is None:
        raise ReportUnavailable(f"{place} has no report yet; it is {run.reason}")
    address = f"{address.removesuffix(f'/{PAGE}').rstrip('/')}/{REPORT}"
    if not address.startswith(_SCHEME):  # a path of the pod's: here it would be some other file
        raise ReportUnavailable(f"the report of {place} is at {address}, on a volume of the cluster")
    try:
        report = RunReport.model_validate_json(_object(address))
    except ValidationError as error:
        raise ReportUnavailable(f"{address} is not a report of a run") from error
    return report


def _object(address: str) -> bytes:
    """The bytes of an object of S3."""
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ModuleNotFoundError as error:
        raise ReportUnavailable(f"to read {address}, install boto3: pip install boto3") from error
    bucket, _, key = address.removeprefix(_SCHEME).partition("/")
    hint = "it is read with your own settings for storage (AWS_*, ~/.aws)"
    try:
        storage: Any = boto3.client("s3", config=Config(connect_timeout=10, read_timeout=30))
        answer = storage.get_object(Bucket=bucket, Key=key)
        data: bytes = answer["Body"].read(MAX_BYTES + 1)
    except (BotoCoreError, ClientError, ValueError) as error:
        raise ReportUnavailable(f"{address} cannot be read from here: {error}; {hint}") from error
    if len(data) > MAX_BYTES:
        raise ReportUnavailable(f"{address} is larger than a report can be")
    return data
