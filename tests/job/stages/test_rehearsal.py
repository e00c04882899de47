"""What a model is asked before data is prepared for it."""

from typing import Any

import pytest
import torch
import transformers
from support.tiny_models import SMALL

from lmft_api.manifest.validation import parse_spec
from lmft_api.spec.resolved import Settings, resolve
from lmft_api.tasks import Task
from lmft_job.data.rows import OneEnd, PadRows
from lmft_job.errors import InvalidError
from lmft_job.models import tokenizers
from lmft_job.models.build import build_model
from lmft_job.models.config import fresh_config
from lmft_job.stages.rehearsal import Rehearsed, rehearse

SEQ2SEQ = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64,
}  # fmt: skip
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
GEMMA3 = {
    "text_config": {**SMALL, "num_key_value_heads": 1, "head_dim": 16, "model_type": "gemma3_text"},
    "vision_config": {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
}


def settings(task: Task, **changed: Any) -> Settings:
    dataset = {"builtin": "PythonDocs"} if task != Task.SEQUENCE_CLASSIFICATION else {"name": "some/data"}
    spec: dict[str, Any] = {"task": task, "model": {"name": "some/model"}, "dataset": dataset, **changed}
    return resolve(parse_spec(spec))


def tokenizer_for(task: Task) -> Any:
    return tokenizers.train(iter([["the river of Ghent is wide and cold"] * 4]), 300, task)


def tried(task: Task, kind: str, given: dict[str, Any], **changed: Any) -> Rehearsed:
    tokenizer = tokenizer_for(task)
    config = fresh_config({"model_type": kind, **given}, tokenizer, None)
    model = build_model(task, config, tokenizer, None, "spec.model.fromConfig", seed=1).model
    return rehearse(model, tokenizer, settings(task, **changed), "spec.model.fromConfig")


POSITIONS: list[tuple[Task, str, dict[str, Any], int | None]] = [
    (Task.MASKED_LM, "roberta", SMALL, 64),
    (Task.MASKED_LM, "mpnet", SMALL, 64),
    (Task.MASKED_LM, "camembert", SMALL, 64),
    (Task.MASKED_LM, "bert", SMALL, 66),
    (Task.CAUSAL_LM, "gpt2", {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}, 64),
    (Task.CAUSAL_LM, "llama", SMALL, 66),
    (Task.CAUSAL_LM, "gemma3", GEMMA3, 66),
    (Task.CAUSAL_LM, "bloom", {"hidden_size": 32, "n_layer": 1, "n_head": 2}, None),
]


@pytest.mark.parametrize(("task", "kind", "given", "limit"), POSITIONS, ids=lambda value: str(value)[:12])
def test_positions_are_counted_where_the_model_looks_them_up(
    task: Task, kind: str, given: dict[str, Any], limit: int | None
) -> None:
    assert tried(task, kind, given).limit == limit


REFUSED: list[tuple[Task, str, dict[str, Any], dict[str, Any], str]] = [
    (Task.MASKED_LM, "bart", SEQ2SEQ, {}, "MaskedLM does not work with a model of type bart; its decoder is given"),
    (
        Task.CAUSAL_LM, "xlm", {"n_layers": 1, "n_heads": 2, "emb_dim": 32},
        {"training": {"gradientCheckpointing": True}}, "CausalLM does not work with a model of type xlm",
    ),
    (
        Task.MASKED_LM, "flaubert", {"n_layers": 1, "n_heads": 2, "emb_dim": 32},
        {"training": {"gradientCheckpointing": True}}, "spec.training.gradientCheckpointing: a model of type flaubert",
    ),
    (
        Task.SEQUENCE_CLASSIFICATION, "fnet", {name: value for name, value in SMALL.items() if "heads" not in name}, {},
        "its answer to a text depends on the padding",
    ),
    (
        Task.SEQUENCE_CLASSIFICATION, "layoutlmv2", SMALL, {}, "the model cannot be built",
    ),
    *(
        (
            Task.CAUSAL_LM, kind, given, {"dataset": {"builtin": "PythonDocs", "isolateDocuments": True}},
            f"spec.dataset.isolateDocuments: a model of type {kind} does not keep documents apart",
        )
        for kind, given in (
            ("mamba", {"hidden_size": 32, "num_hidden_layers": 2}),
            ("rwkv", {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32}),
            ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 2}),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("task", "kind", "given", "changed", "words"), REFUSED, ids=lambda value: str(value)[:12])
def test_what_a_model_cannot_do_is_refused_in_words(
    task: Task, kind: str, given: dict[str, Any], changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidError, match=words):
        tried(task, kind, given, **changed)


AXK2 = {
    **SMALL, "num_key_value_heads": 2, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
    "n_group": 1, "topk_group": 1, "moe_intermediate_size": 32, "q_lora_rank": 16, "kv_lora_rank": 16,
    "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16, "index_head_dim": 16, "index_n_heads": 2,
}  # fmt: skip


@pytest.mark.parametrize(("choice", "refused"), [(16, True), (63, True), (64, False), (2048, False)])
def test_attention_to_a_choice_of_tokens_is_for_rows_without_padding(choice: int, refused: bool) -> None:
    given = {**AXK2, "index_topk": choice, "max_position_embeddings": 64}
    assert tried(Task.CAUSAL_LM, "axk2", given).limit == 64
    if refused:
        with pytest.raises(InvalidError, match=rf"attends to {choice} tokens .* Set index_topk to 64, or take"):
            tried(Task.SEQUENCE_CLASSIFICATION, "axk2", given)
    else:
        assert tried(Task.SEQUENCE_CLASSIFICATION, "axk2", given).limit == 64


@pytest.mark.parametrize(("kind", "given"), [("bart", SEQ2SEQ), ("t5", T5)])
def test_an_end_within_a_text_is_no_end_for_heads_that_read_there(kind: str, given: dict[str, Any]) -> None:
    tokenizer = tokenizer_for(Task.SEQUENCE_CLASSIFICATION)
    config = fresh_config({"model_type": kind, **given}, tokenizer, ["cold", "warm"])
    built = build_model(Task.SEQUENCE_CLASSIFICATION, config, tokenizer, None, "spec.model.fromConfig", seed=1)
    texts = ["the river", "the river</s> of Ghent </s> is wide"]
    rows = [{"input_ids": tokenizer(text)["input_ids"], "labels": 0} for text in texts]
    collate = OneEnd(PadRows(tokenizer.pad_token_id), tokenizer)

    found = rehearse(built.model, tokenizer, settings(Task.SEQUENCE_CLASSIFICATION), "spec.model.fromConfig")
    batch = collate(rows)

    assert found.one_end
    assert (batch["input_ids"] == tokenizer.eos_token_id).sum(1).tolist() == [1, 1]
    assert batch["input_ids"][1, -1] == tokenizer.eos_token_id
    assert torch.isfinite(built.model(**batch).loss)


def test_a_rehearsal_changes_neither_weights_nor_mode_nor_random_state() -> None:
    tokenizer = tokenizer_for(Task.CAUSAL_LM)
    given = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
    model = build_model(
        Task.CAUSAL_LM, fresh_config(given, tokenizer, None), tokenizer, None, "spec.model.fromConfig", seed=1
    ).model.train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()

    rehearse(model, tokenizer, settings(Task.CAUSAL_LM, sample={"prompts": ["the river"]}), "spec.model.fromConfig")

    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_a_tokenizer_whose_ids_have_gaps_gets_as_many_embeddings_as_its_largest_id_wants() -> None:
    core = tokenizers.train(iter([["the river"]]), 300, Task.MASKED_LM)
    core.backend_tokenizer.add_tokens(["river"])
    gaps = core.backend_tokenizer.to_str().replace(f'"id":{len(core) - 1}', '"id":400')
    from tokenizers import Tokenizer

    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(gaps), mask_token="<mask>", pad_token="<pad>"
    )
    config = fresh_config({"model_type": "bert", **SMALL}, tokenizer, None)
    assert config.vocab_size == max(tokenizer.get_vocab().values()) + 1
    model = build_model(Task.MASKED_LM, config, tokenizer, None, "spec.model.fromConfig", seed=1).model
    assert model(input_ids=torch.tensor([[max(tokenizer.get_vocab().values())]])).logits.shape[-1] == config.vocab_size
