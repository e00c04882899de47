"""Builds the report from what a run knows at its end, and from the report the result that the operator reads."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from lmft_api import __version__
from lmft_api.figures import FIGURES, decimal
from lmft_api.reasons import Reason
from lmft_api.status import MAX_MESSAGE, CheckpointStatus, EvaluationResult, Provenance, Results, SampleResult
from lmft_api.text.wording import shorten
from lmft_api.wire.layout import REPORT
from lmft_api.wire.report import EvaluationRow, Report, ReportProvenance, ResultFigures
from lmft_api.wire.result import Counts, Result
from lmft_api.wire.run_file import RunFile, spec_hash
from lmft_job.storage import Store
from lmft_job.storage.notes import read_note

_LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "peft", "tokenizers", "evaluate", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that affect the figures."""
    found = {"python": python_version(), "lmfinetune": __version__}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def provenance(run: RunFile, seed: int, model_revision: str | None, fingerprint: str | None) -> ReportProvenance:
    """What is needed to reproduce the run."""
    return ReportProvenance(
        versions=versions(),
        seed=seed,
        model_revision=model_revision,
        dataset_revision=run.spec.dataset.revision,
        dataset_fingerprint=fingerprint,
        spec_hash=spec_hash(run.spec),
        image=run.image,
        git=_commit(),
        resumed_from=run.resume_model_uri,
    )


def completed(report: Report, checkpoint: CheckpointStatus | None = None) -> Result:
    """The result of a completed run."""
    figures, training, origin = report.results, report.training, report.provenance
    return Result(
        reason=Reason.COMPLETED,
        message=" ".join([_outcome(report), *report.warnings]),
        results=Results(
            **_decimals(figures),
            samples=[
                SampleResult(prompt=shorten(s.prompt, MAX_MESSAGE), before=_cut(s.before), after=_cut(s.after))
                for s in figures.samples
            ]
            or None,
            model_uri=figures.model_uri,
            adapter_uri=figures.adapter_uri,
            report_uri=figures.report_uri,
        ),
        checkpoint=checkpoint,
        counts=Counts(
            steps=training.steps,
            total_steps=training.total_steps,
            resumed_from_step=training.resumed_from_step,
            lost_steps=training.lost_steps,
            tokens_per_second=round(training.tokens_per_second) if training.tokens_per_second else None,
        ),
        adjustments=list(training.adjustments) or None,
        redactions=report.redactions or None,
        provenance=Provenance(
            image=origin.image,
            model_revision=origin.model_revision,
            dataset_fingerprint=origin.dataset_fingerprint,
            spec_hash=origin.spec_hash,
            seed=origin.seed,
            resumed_from=origin.resumed_from,
            versions=origin.versions or None,
        ),
        evaluations=[evaluation_result(evaluation) for evaluation in report.evaluations] or None,
    )


def evaluation_result(evaluation: EvaluationRow) -> EvaluationResult:
    """An evaluation in the result's format: decimals as text."""
    figures: dict[str, Any] = {kind.name: decimal(getattr(evaluation, kind.name), kind.digits) for kind in FIGURES}
    return EvaluationResult(
        step=evaluation.step,
        epoch=decimal(evaluation.epoch, 2) or "0",
        train_loss=decimal(evaluation.train_loss),
        **figures,
    )


def _decimals(figures: ResultFigures) -> dict[str, Any]:
    return {name: decimal(getattr(figures, name), kind.digits) for kind in FIGURES for name in kind.fields}


def _cut(text: str | None) -> str | None:
    return text and shorten(text, MAX_MESSAGE)


def _outcome(report: Report) -> str:
    from lmft_job.report.formatting import outcome

    return outcome(report)


def _commit() -> str | None:
    folder = Path(__file__).resolve().parents[3]
    if not (folder / ".git").exists():
        return None
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None if asked.returncode == 0 else None


def stored_report(store: Store) -> Report | None:
    """The report of a completed run; None if it is not complete.

    Raises:
        InvalidError: the report is damaged.
    """
    return read_note(store, REPORT, Report.model_validate)
