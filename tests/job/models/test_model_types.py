"""Every model type that docs/model-types.md says trains can be configured; ``make sweep`` trains them."""

import pytest
import transformers
from sweep import table
from sweep.tiny import tiny

from lmft_job.errors import InvalidError
from lmft_job.models.config import fresh_config

_TRAIN = {kind for (_, kind), verdict in table.read(table.PAGE.read_text()).items() if verdict.outcome == "equal"}


def test_their_tiny_configurations_are_accepted() -> None:
    refused: dict[str, str] = {}
    for kind in sorted(_TRAIN):
        try:
            config = fresh_config(tiny(kind), None, None)
            assert type(config) is transformers.CONFIG_MAPPING[kind]
        except InvalidError as error:
            refused[kind] = str(error)[:200]

    assert len(_TRAIN) > 150
    assert refused == {}


def test_an_activation_of_a_type_whose_settings_differ_from_layer_to_layer_is_still_checked() -> None:
    given = tiny("gemma4_text") | {"hidden_activation": "gelo"}

    with pytest.raises(InvalidError, match=r"fromConfig.hidden_activation: 'gelo' is not an activation function"):
        fresh_config(given, None, None)
