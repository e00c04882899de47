"""Quantities that lift a node's limits, and last words of an image of one's own that lead elsewhere or are no figures.

The effect would be a quantity that both the API's rules and the platform's maxima let through, or a status that shows
what the run's folder and the policy do not cover.
"""

from collections.abc import Iterator
from functools import partial

from attacks.registry import Attack
from lmft_api.manifest.validation import parse_spec, spec_problems
from lmft_api.reasons import Reason
from lmft_api.status import CheckpointStatus, Results
from lmft_api.wire.result import Result
from lmft_operator.decide.screening import AcceptanceRules, accepted
from lmft_operator.jobs import policy
from lmft_operator.settings import parse

PLAIN = {"model": {"name": "gpt2"}, "dataset": {"builtin": "PythonDocs"}, "output": {"uri": "s3://models/a"}}
FIELDS = ("cpu", "memory", "ephemeralStorage", "sharedMemory")
QUANTITIES = (
    *("0", "0.0", "0m", "0Ei", "00", "-1", "-1Gi", "+1Gi", "1e12", "1E400", "NaN", "inf", "", " 1Gi", "1Gi ", "1Gi\n"),
    *(
        "999E",
        "999Ei",
        "9" * 32,
        "9" * 31 + "E",
        "129Ti",
        "2Pi",
        "1P",
        "1GiB",
        "1 Gi",
        "١Gi",
        "0x10Gi",
        "1_0Gi",
        "1,5Gi",
    ),
)
SETTINGS = parse("policy: {maxCpu: '8', maxMemory: 64Gi, maxEphemeralStorage: 1Ti, maxSharedMemory: 16Gi}")
FOLDER = "s3://models/team-a/runs/own-01234567"
ADDRESSES = (
    *("javascript:alert(1)", "data:text/html,x", "https://example.com/x", "//example.com/x", "/etc/passwd", "file://x"),
    *(
        "s3://elsewhere/x",
        "s3:///x",
        "S3://models/x",
        f"{FOLDER}/../x",
        f"{FOLDER}/%2e%2e/x",
        f"{FOLDER}/%2E%2E/%2e./x",
    ),
    *(f"{FOLDER}x/y", f"{FOLDER}/a b", f"{FOLDER}/a\tb", f"{FOLDER}/\u202ex", f"{FOLDER}/\x1b[2J", f" {FOLDER}/x", ""),
)
FIGURES = ("NaN", "-inf", "Infinity", "1e999", "0x1", "1_0", "１", " 1", "1\n", "", "1e", ".", "--1", "<b>", "\x1b[2J")


def attacks() -> Iterator[Attack]:
    """Every quantity in every field, and every address and figure in every place of a result."""
    for field in FIELDS:
        for number, quantity in enumerate(QUANTITIES):
            yield Attack(f"resources.{field} {number}: {quantity!r}", partial(_quantity, field, quantity))
    for number, address in enumerate(ADDRESSES):
        yield Attack(f"addresses {number}: {address!r}", partial(_address, address))
    for number, figure in enumerate(FIGURES):
        yield Attack(f"figures {number}: {figure!r}", partial(_figure, figure))


def _quantity(field: str, quantity: str) -> str | None:
    spec = PLAIN | {"resources": {field: quantity}}
    if spec_problems(spec) or policy.refusals(parse_spec(spec), SETTINGS, "team-a"):
        return None
    return f"{field} {quantity} is taken"


def _address(address: str) -> str | None:
    said = Result(
        reason=Reason.COMPLETED,
        results=Results(model_uri=address, report_uri=address),
        checkpoint=CheckpointStatus(step=1, uri=address),
    )
    kept, _ = accepted(said, AcceptanceRules(FOLDER, own_image=True, admits=lambda uri: False))
    shown = kept.results is not None and (kept.results.model_uri or kept.results.report_uri)
    return f"{address} is shown" if shown or kept.checkpoint is not None else None


def _figure(figure: str) -> str | None:
    names = [name for name, field in Results.model_fields.items() if not name.endswith("_uri") and name != "samples"]
    said = Result(reason=Reason.COMPLETED, results=Results.model_validate(dict.fromkeys(names, figure)))
    kept, _ = accepted(said, AcceptanceRules(FOLDER, own_image=True, admits=lambda uri: False))
    shown = [name for name in names if kept.results is not None and getattr(kept.results, name) is not None]
    return f"{figure} is shown as {', '.join(shown)}" if shown else None
