"""What sets the tasks apart: every task answers every question, and rows are of one of two kinds."""

import subprocess
import sys

import numpy as np
import pytest

from lmft_api.spec import Dataset, LMFineTuneSpec, Model
from lmft_api.spec.resolved import resolve
from lmft_api.tasks import TASKS, Task
from lmft_job import tasks
from lmft_job.tasks.base import TaskType

QUESTIONS = [name for name in TaskType.__annotations__ if not name.startswith("_")]


@pytest.mark.parametrize("name", Task)
def test_every_task_answers_every_question(name: Task) -> None:
    task = tasks.of(name)

    assert task.name == name
    assert [question for question in QUESTIONS if not hasattr(task, question)] == []
    assert task.packed != task.has_labels
    assert not task.causal or task.packed


@pytest.mark.parametrize("name", Task)
def test_what_a_task_does_not_take_is_none_in_the_settings(name: Task) -> None:
    given = Dataset(name="a/b", label_field="label", block_size=64, mask_probability="0.3")
    # the rules of a spec refuse this; a status of another version may hold it
    dataset = resolve(LMFineTuneSpec.model_construct(task=name, model=Model(name="a/b"), dataset=given)).dataset
    taken = {"label_field": "label", "block_size": 64, "mask_probability": 0.3}

    assert {field: getattr(dataset, field) for field in taken} == {
        field: value if getattr(TASKS[name], field) is not None else None for field, value in taken.items()
    }


@pytest.mark.parametrize(
    ("name", "labels", "targets"),
    [
        (Task.CAUSAL_LM, [[1, 2, 3], [-100, -100, 3]], [2, 1]),
        (Task.MASKED_LM, [[1, -100, 3], [-100, -100, -100]], [2, 0]),
    ],
)
def test_targets_are_counted_where_the_loss_looks(name: Task, labels: list[list[int]], targets: list[int]) -> None:
    assert tasks.of(name).targets_by_row(np.array(labels)).tolist() == targets


def test_the_table_is_read_without_torch() -> None:
    code = "import sys; from lmft_job import tasks; sys.exit(any(name in sys.modules for name in ('torch', 'numpy')))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
