"""A report as HTML for a notebook."""

from lmft.display.curve import curve
from lmft.display.html import details, rows_of, text
from lmft_api.figures import FIGURES, Figure, decimal
from lmft_api.wire.report import Report


def report_card(report: Report) -> str:
    """Model and data, figures before and after, the loss over the evaluations, samples, warnings."""
    parts = [f"<div><b>{text(f'{report.namespace}/{report.name}')}</b> {text(report.model.name)}</div>"]
    rows = []
    for kind in FIGURES:
        now, before, error, before_error = (getattr(report.results, name) for name in kind.fields)
        if now is not None or before is not None:
            rows.append((kind.label or kind.word, _shown(kind, before, before_error), _shown(kind, now, error)))
    parts += [rows_of(("", "before", "after"), rows) if rows else ""]
    parts += [curve([(row.step, row.eval_loss) for row in report.evaluations], "held-out loss")]
    parts += [f"<div>⚠ {text(warning)}</div>" for warning in report.warnings]
    parts += [details(sample.prompt, sample.before or "", sample.after or "") for sample in report.results.samples]
    return f'<div style="font-family:sans-serif;max-width:56em">{"".join(parts)}</div>'


def _shown(kind: Figure, value: float | None, error: float | None) -> str:
    number = decimal(value, kind.digits) or ""
    within = decimal(error, kind.digits) if error is not None else None
    return f"{number} ± {within}" if number and within else number
