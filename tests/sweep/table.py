"""The sweep's result as a page: one row for each model type, written by the sweep and by nothing else."""

import re
from pathlib import Path

from sweep.trial import TOLERANCE, Verdict

PAGE = Path(__file__).resolve().parents[2] / "docs" / "model-types.md"
TASKS = ("CausalLM", "MaskedLM", "SequenceClassification")
Verdicts = dict[tuple[str, str], Verdict]

_TRAINS, _UNTRIED = "trains", "not tried"
_ROW = re.compile(r"^\| ([\w.-]+) \| (.*) \| (.*) \| (.*) \|$", re.M)
_LONGEST = 150


def page(verdicts: Verdicts, listed: list[tuple[str, str]], version: str) -> str:
    """The page; ``listed`` is every task and type that transformers lists."""
    tried = {pair: verdicts[pair] for pair in listed if pair in verdicts}
    trained = sum(verdict.outcome == "equal" for verdict in tried.values())
    refused = sum(verdict.outcome == "refused" for verdict in tried.values())
    wrong, left = len(tried) - trained - refused, len(listed) - len(tried)
    rows = [
        "| " + " | ".join([kind, *(_cell(task, kind, verdicts, listed) for task in TASKS)]) + " |"
        for kind in sorted({kind for _, kind in listed})
    ]
    return "\n".join([
        "# Model types",
        "",
        f"What `make sweep` found with transformers {version}. Of the {len(listed)} pairs of task and model type that",
        f"its Auto classes list, {trained} train, {refused} are refused before the data is prepared, {wrong} do neither"
        + (f", and {left} have not been tried." if left else "."),
        "",
        "*Trains* means: a model of a few thousand weights, made from `fromConfig`, was trained for three steps;",
        "loss and accuracy equal those that plain transformers has for the published folder, from the logits of single",
        f"rows in FP64, within {TOLERANCE:g}; and the published folder and the checkpoint, read again, have the same",
        "weights. A refusal is quoted; some lie in the sizes of the tiny configuration.",
        "",
        "| type | " + " | ".join(TASKS) + " |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
    ])  # fmt: skip


def read(text: str) -> Verdicts:
    """The verdicts of a page, for a sweep over some types alone."""
    found: Verdicts = {}
    for kind, *cells in _ROW.findall(text):
        for task, cell in zip(TASKS, cells, strict=True):
            outcome, _, words = cell.partition(": ")
            if outcome == _TRAINS:
                found[task, kind] = Verdict("equal")
            elif outcome in ("refused", "differs", "late", "failed"):
                found[task, kind] = Verdict(outcome, words)
    found.pop(("CausalLM", "type"), None)
    return found


def _cell(task: str, kind: str, verdicts: Verdicts, listed: list[tuple[str, str]]) -> str:
    if (task, kind) not in listed:
        return ""
    verdict = verdicts.get((task, kind))
    if verdict is None:
        return _UNTRIED
    if verdict.outcome == "equal":
        return _TRAINS
    words = re.sub(r"^spec\.(task|model\.fromConfig): ", "", re.sub(r"\s+", " ", verdict.words)).replace("|", "/")
    return f"{verdict.outcome}: {words if len(words) <= _LONGEST else words[:_LONGEST] + '…'}"
