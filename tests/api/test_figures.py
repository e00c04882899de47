"""The table of figures: what it names exists on both sides, and shows the same everywhere."""

import math

import pytest

from lmft_api.figures import ACCURACY, EVAL_LOSS, FIGURES, PERPLEXITY, Figure, decimal, headlines, known, of_task
from lmft_api.status import EvaluationResult, Results
from lmft_api.tasks import TASKS, Task
from lmft_api.wire.progress import MetricName
from lmft_api.wire.report import EvaluationRow, ResultFigures


@pytest.mark.parametrize("kind", FIGURES, ids=lambda kind: kind.name)
def test_status_and_report_have_the_fields_of_every_figure(kind: Figure) -> None:
    for results in (Results, ResultFigures):
        assert set(kind.fields) <= results.model_fields.keys()
    for evaluation in (EvaluationResult, EvaluationRow):
        assert kind.name in evaluation.model_fields
    assert hasattr(EvaluationRow(step=1, epoch=1.0, eval_loss=1.0), kind.standard_error)


@pytest.mark.parametrize("kind", FIGURES, ids=lambda kind: kind.name)
def test_the_change_of_every_figure_can_be_judged(kind: Figure) -> None:
    judged_by = kind.function_of or kind.name

    assert judged_by in {other.name for other in FIGURES}
    assert f"{judged_by}_change_standard_error" in ResultFigures.model_fields


def test_results_hold_no_figure_that_the_table_does_not_know() -> None:
    others = {"display", "samples", "model_uri", "adapter_uri", "report_uri"}
    table = {name for kind in FIGURES for name in kind.fields}

    assert Results.model_fields.keys() - others == table


def test_no_name_means_two_things() -> None:
    names = [name for kind in FIGURES for name in kind.fields] + [name.value for name in MetricName]

    assert len(names) == len(set(names))
    for texts in ([kind.title for kind in FIGURES], [kind.word for kind in FIGURES]):
        assert len(texts) == len(set(texts))


def test_every_task_has_a_result_in_short() -> None:
    assert {task: of_task(task)[0] for task in Task} == {
        Task.CAUSAL_LM: PERPLEXITY,
        Task.MASKED_LM: PERPLEXITY,
        Task.SEQUENCE_CLASSIFICATION: ACCURACY,
    }
    assert headlines() == [PERPLEXITY, ACCURACY]


def test_every_figure_is_of_a_task_and_every_task_names_figures_of_the_table() -> None:
    assert {name for task in TASKS.values() for name in task.figures} == {kind.name for kind in FIGURES}


def test_known_figures_come_in_the_order_of_the_table() -> None:
    assert list(known(Results(eval_loss="3.9", perplexity="49.40"))) == [PERPLEXITY, EVAL_LOSS]
    assert list(known(Results())) == []
    assert list(known(None)) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        (0.0, "0.00"),
        (98.434, "98.43"),
        (1_270_000.0, "1270000.00"),
        (999_999_999_999_999.0, "999999999999999.00"),
        (1e15, "1.00e+15"),
        (5.685e32, "5.69e+32"),
        (-1.7e308, "-1.70e+308"),
        (math.inf, "inf"),
    ],
)
def test_a_figure_is_text_of_a_bounded_length(value: float | None, text: str | None) -> None:
    assert decimal(value, 2) == text
