"""Which parts of a job's result are accepted: a pod writes it, and the pod may run the user's own image.

Figures must be numbers, addresses must lie below the run's folder or where policy lets manifests point, and provenance
is accepted only from the platform's own image. What is dropped is named in the message; it does not change how the run
ends.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import unquote

from lmft_api.addresses import OBJECT_STORES
from lmft_api.schema.types import ApiModel
from lmft_api.spec import LMFineTuneSpec
from lmft_api.status import EvaluationResult, finite
from lmft_api.text.wording import sentence, shorten
from lmft_api.wire.result import Result
from lmft_operator.decide.judge import shown
from lmft_operator.domain.facts import Key
from lmft_operator.domain.verdict import Verdict
from lmft_operator.jobs import policy
from lmft_operator.settings import OperatorSettings
from lmft_operator.status.change import Model, ResultValues, change, with_values

MAX_ATTEMPT = 1_000_000
"""No run has had so many attempts; a higher number would leave no numbers for further attempts."""
_ADDRESS = re.compile(rf"(({'|'.join(OBJECT_STORES)})://[^/\s]|file:///)\S*")
_FIGURE = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?", re.ASCII)
_ADDRESSES = frozenset({"model_uri", "adapter_uri", "report_uri"})
_SHOWN_OF_ADDRESS, _SHOWN_OF_FIGURE = 120, 32


@dataclass(frozen=True)
class AcceptanceRules:
    """What decides which parts of a result are accepted.

    Attributes:
        folder: address of the run's folder in storage; None where the manifest names no readable storage.
        own_image: whether the image is the user's own.
        admits: whether the policy lets the manifest name an address.
    """

    folder: str | None
    own_image: bool
    admits: Callable[[str], bool]


def acceptance_rules(key: Key, folder: str | None, spec: LMFineTuneSpec, settings: OperatorSettings) -> AcceptanceRules:
    """The grounds on which results of a run are accepted."""
    image = spec.pod_template.image if spec.pod_template else None
    own = image is not None and image != settings.job.image
    return AcceptanceRules(folder, own, lambda uri: not policy.unreadable(uri, spec, settings, key.namespace))


def screened(outcome: Verdict, on: AcceptanceRules) -> Verdict:
    """The verdict with only the accepted parts of its result, and a note about the rest in its message."""
    if outcome.result is None:
        return outcome
    result, notes = accepted(outcome.result, on)
    if not notes:
        return replace(outcome, result=result)
    message = f"{sentence(outcome.message)} Left out of the status: {'; '.join(notes)}."
    return replace(outcome, result=result, message=message.strip())


def accepted(result: Result, on: AcceptanceRules) -> tuple[Result, list[str]]:
    """The accepted parts of a result, and notes on the rest: the field and the reason."""
    notes: list[str] = []
    updates: ResultValues = {}
    if result.results is not None:
        # The short form that kubectl shows is written by the operator.
        known = _figures(change(result.results, display=None), "results", notes)
        updates["results"] = change(
            known,
            model_uri=_home(known.model_uri, "results.modelURI", on, notes),
            adapter_uri=_home(known.adapter_uri, "results.adapterURI", on, notes),
            report_uri=_home(known.report_uri, "results.reportURI", on, notes),
        )
    if result.checkpoint is not None:
        home = _home(result.checkpoint.uri, "checkpoint.uri", on, notes)
        updates["checkpoint"] = result.checkpoint if home is not None else None
    if result.evaluations is not None:
        updates["evaluations"] = _evaluations(result.evaluations, notes)
    if result.adjustments is not None:
        updates["adjustments"] = [shown(words) for words in result.adjustments]
    if result.provenance is not None:
        # The operator itself has found out which run spec.resumeFrom led to; a user's own image may claim anything.
        updates["provenance"] = None if on.own_image else change(result.provenance, resumed_from=None)
    highest = result.highest_attempt
    if on.own_image or (highest is not None and highest > MAX_ATTEMPT):
        updates["highest_attempt"] = None
    return change(result, **updates), notes


def _figures(model: Model, place: str, notes: list[str]) -> Model:
    """The model without text where numbers belong; numbers of any size are accepted, NaN and words are not."""
    wrong = {name: value for name, value in _texts(model).items() if name not in _ADDRESSES and not _is_figure(value)}
    for name, value in wrong.items():
        field = type(model).model_fields[name].alias
        notes.append(f'{place}.{field} "{shorten(shown(value), _SHOWN_OF_FIGURE)}" is not a figure')
    return with_values(model, dict.fromkeys(wrong))


def _evaluations(evaluations: list[EvaluationResult], notes: list[str]) -> list[EvaluationResult]:
    kept = []
    for index, evaluation in enumerate(evaluations):
        found = _figures(evaluation, f"evaluations[{index}]", notes)
        if _is_figure(evaluation.epoch) and _is_figure(evaluation.eval_loss):
            kept.append(found)
    return kept


def _home(uri: str | None, place: str, on: AcceptanceRules, notes: list[str]) -> str | None:
    """The address if it lies below the run's folder or where policy lets a manifest point, else None."""
    if uri is None:
        return None
    well_formed = _ADDRESS.fullmatch(uri) and uri.isprintable() and ".." not in unquote(uri).split("/")
    if well_formed and ((on.folder is not None and uri.startswith(f"{on.folder}/")) or on.admits(uri)):
        return uri
    words = "lies neither below the run's folder nor where policy.sources.uris lets a manifest point"
    notes.append(f'{place} "{shorten(shown(uri), _SHOWN_OF_ADDRESS)}" {words}')
    return None


def _is_figure(text: str) -> bool:
    return _FIGURE.fullmatch(text) is not None and finite(text) is not None


def _texts(model: ApiModel) -> dict[str, str]:
    """The model's own fields that hold text."""
    found = {name: getattr(model, name) for name in type(model).model_fields}
    return {name: value for name, value in found.items() if isinstance(value, str)}
