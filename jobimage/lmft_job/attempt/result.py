"""From what a run knows at its end to the report, and from the report to the result that the operator reads."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version

from lmft_api import __version__
from lmft_api.reasons import Reason
from lmft_api.status import MAX_MESSAGE, CheckpointStatus, EvaluationResult, Provenance, Results, SampleResult
from lmft_api.text.wording import shorten
from lmft_api.wire.layout import REPORT
from lmft_api.wire.report import EvaluationRow, Report, ReportProvenance
from lmft_api.wire.result import Counts, Result
from lmft_api.wire.run_file import RunFile, spec_hash
from lmft_job.storage import Store
from lmft_job.storage.notes import read_note

_LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "tokenizers", "evaluate", "numpy")


def versions() -> dict[str, str]:
    """Python's and the libraries' that decide the figures."""
    found = {"python": python_version(), "lmfinetune": __version__}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def provenance(run: RunFile, seed: int, model_revision: str | None, fingerprint: str | None) -> ReportProvenance:
    """What is needed to get the same again."""
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
    """The last word of a run that is done."""
    figures, training, origin = report.results, report.training, report.provenance
    return Result(
        reason=Reason.COMPLETED,
        message=_outcome(report),
        results=Results(
            perplexity=number(figures.perplexity, 2),
            baseline_perplexity=number(figures.baseline_perplexity, 2),
            eval_loss=number(figures.eval_loss),
            baseline_eval_loss=number(figures.baseline_eval_loss),
            accuracy=number(figures.accuracy),
            baseline_accuracy=number(figures.baseline_accuracy),
            perplexity_standard_error=number(figures.perplexity_standard_error, 2),
            baseline_perplexity_standard_error=number(figures.baseline_perplexity_standard_error, 2),
            eval_loss_standard_error=number(figures.eval_loss_standard_error),
            baseline_eval_loss_standard_error=number(figures.baseline_eval_loss_standard_error),
            accuracy_standard_error=number(figures.accuracy_standard_error),
            baseline_accuracy_standard_error=number(figures.baseline_accuracy_standard_error),
            samples=[
                SampleResult(prompt=shorten(s.prompt, MAX_MESSAGE), before=_cut(s.before), after=_cut(s.after))
                for s in figures.samples
            ]
            or None,
            model_uri=figures.model_uri,
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
    """An evaluation in the contract's words: decimals as text."""
    return EvaluationResult(
        step=evaluation.step,
        epoch=number(evaluation.epoch, 2) or "0",
        train_loss=number(evaluation.train_loss),
        eval_loss=number(evaluation.eval_loss) or "0",
        perplexity=number(evaluation.perplexity, 2),
        accuracy=number(evaluation.accuracy),
    )


def number(value: float | None, digits: int = 4) -> str | None:
    """A decimal as the status shows it; live progress rounds alike, so that a figure stays as it was shown."""
    if value is None:
        return None
    # 32 characters is what the status takes, and a model that is far off has a perplexity with more digits than that.
    return f"{value:.{digits}f}" if abs(value) < 1e15 else f"{value:.{digits}e}"


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
    """The report of a run that is complete; None while it is not.

    Raises:
        InvalidError: it is damaged.
    """
    return read_note(store, REPORT, Report.model_validate)
