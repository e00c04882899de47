"""Changed copies: mypy checks the names and types that ``change`` takes, and these tests that they are the models'."""

from typing import get_type_hints

import pytest

from lmft_api.status import Attempt, LMFineTuneStatus, Results
from lmft_operator.status.change import VALUES, change, with_values


@pytest.mark.parametrize("model", VALUES, ids=lambda model: model.__name__)
def test_the_names_and_types_that_mypy_checks_are_those_of_the_model(model: type) -> None:
    of_model, ours = get_type_hints(model), get_type_hints(VALUES[model])

    assert ours
    # Without the bounds that pydantic checks: get_type_hints leaves them out.
    assert ours.items() <= of_model.items()


def test_every_field_of_a_status_can_be_changed() -> None:
    assert get_type_hints(VALUES[LMFineTuneStatus]).keys() == LMFineTuneStatus.model_fields.keys()


def test_a_change_leaves_the_original_alone() -> None:
    before = Attempt(number=1, job="demo-1")

    assert change(before, exit_code=75) == Attempt(number=1, job="demo-1", exit_code=75)
    assert before.exit_code is None


def test_a_name_from_a_table_that_is_not_a_field_is_an_error() -> None:
    with pytest.raises(TypeError, match="Results has no field loss, perplexitty"):
        with_values(Results(), {"perplexitty": "1.0", "loss": None})
