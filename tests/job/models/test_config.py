"""Configurations made from a manifest: what is refused in them, and what of the data they may say."""

from typing import Any

import pytest

from lmft_api.tasks import Task
from lmft_job.errors import InvalidError
from lmft_job.models import tokenizers
from lmft_job.models.build import build_model
from lmft_job.models.config import fresh_config

TINY = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 64}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Trained on a few words."""
    return tokenizers.train(iter([["the river of Ghent is wide and cold"] * 4]), 300, Task.CAUSAL_LM)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"n_layer": 1}, "model_type: is missing"),
        ({"model_type": 5}, "model_type: must be text, not 5"),
        ({"model_type": "gtp2"}, "did you mean gpt2"),
        ({**TINY, "n_layr": 1}, "n_layr: gpt2 has no such setting; did you mean n_layer"),
        ({**TINY, "vocab_size": 10}, "vocab_size: 10 is less than"),
        (
            {**TINY, "n_layer": 10**8},
            "fromConfig.n_layer: is 100,000,000, and at most 4,096 are read",
        ),
        ({"model_type": "qwen2", "num_hidden_layers": 10**8}, "fromConfig.num_hidden_layers: is 100,000,000, and"),
        (
            {"model_type": "gemma3", "text_config": {"num_hidden_layers": 10**8}},
            "fromConfig.text_config.num_hidden_layers: is 100,000,000, and at most 4,096 are read",
        ),
        ({**TINY, "n_layer": "one"}, "spec.model.fromConfig.n_layer: must be a whole number, not 'one'"),
        (
            {**TINY, "layer_norm_epsilon": "1e-5"},
            "layer_norm_epsilon: must be a number with a decimal point, such as 0.02 and without quotes (YAML "
            "reads 1e-5 as text: write 1.0e-5), not '1e-5'",
        ),
        ({**TINY, "initializer_range": 1}, "fromConfig.initializer_range: must be a number with a decimal point"),
        ({**TINY, "scale_attn_weights": "yes"}, "fromConfig.scale_attn_weights: must be true or false, not 'yes'"),
        (
            {**TINY, "activation_function": "gleu"},
            "activation_function: 'gleu' is not an activation function that transformers knows; did you mean gelu",
        ),
        (
            {"model_type": "bert", "hidden_act": "xyz"},
            "fromConfig.hidden_act: 'xyz' is not an activation function that",
        ),
        ({"model_type": "distilbert", "activation": 5}, "fromConfig.activation: 5 is not an activation function that"),
        (
            {"model_type": "gemma3", "text_config": {"hidden_activation": "gelo"}},
            "fromConfig.text_config.hidden_activation: 'gelo' is not an activation function",
        ),
    ],
)
def test_a_wrong_config_is_refused_with_the_remedy(given: dict[str, Any], words: str, tokenizer: Any) -> None:
    with pytest.raises(InvalidError) as caught:
        fresh_config(given, tokenizer, None)
    assert words in str(caught.value)


@pytest.mark.parametrize("larger", [{"n_embd": 10**8}, {"n_positions": 10**12}, {"vocab_size": 10**12}])
def test_a_model_larger_than_the_machines_memory_is_refused_before_it_is_built(
    larger: dict[str, int], tokenizer: Any
) -> None:
    config = fresh_config(TINY | larger, tokenizer, None)
    with pytest.raises(InvalidError, match=r"would have [0-9,]+ parameters, [0-9,.]+ GiB in FP32, and there are"):
        build_model(Task.CAUSAL_LM, config, tokenizer, None, "spec.model.fromConfig", seed=1)


CLASSIFIER = {"model_type": "distilbert", "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}
OF_THE_DATA: list[tuple[dict[str, Any], str]] = [
    ({"num_labels": 3}, "num_labels: the classes are those of spec.dataset.labelField in the data; remove it"),
    ({"id2label": {"0": "cold"}}, "id2label: the classes are those of spec.dataset.labelField"),
    ({"label2id": {"cold": 0}}, "label2id: the classes are those of spec.dataset.labelField"),
    ({"problem_type": "regression"}, "problem_type: 'regression' is not supported: each row has one class"),
    ({"problem_type": "multi_label_classification"}, "problem_type: 'multi_label_classification' is not supported"),
]


@pytest.mark.parametrize("labels", [None, ["cold", "warm"]])
@pytest.mark.parametrize(("given", "words"), OF_THE_DATA)
def test_a_config_does_not_decide_on_the_classes(
    given: dict[str, Any], words: str, labels: list[str] | None, tokenizer: Any
) -> None:
    """Before the data is read, and after."""
    with pytest.raises(InvalidError) as caught:
        fresh_config({**CLASSIFIER, **given}, tokenizer, labels, labelled=True)
    assert str(caught.value).startswith(f"spec.model.fromConfig.{words}")


def test_a_config_may_say_that_a_row_has_one_class(tokenizer: Any) -> None:
    given = {**CLASSIFIER, "problem_type": "single_label_classification"}
    config = fresh_config(given, tokenizer, ["cold", "warm"], labelled=True)
    assert (config.problem_type, config.num_labels) == ("single_label_classification", 2)
    assert given["problem_type"] == "single_label_classification"
