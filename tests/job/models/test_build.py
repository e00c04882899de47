"""Models and tokenizers: found or clearly not found, built or clearly refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.tiny_models import SMALL
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import BertPreTokenizer

from lmft_api.spec.resolved import SampleSettings
from lmft_api.tasks import Task
from lmft_job.errors import InvalidError, RefusedError
from lmft_job.evaluation.held_out import evaluate_held_out
from lmft_job.evaluation.samples import answer_prompts, check_prompts
from lmft_job.models import tokenizers
from lmft_job.models.build import build_model, load_config, load_tokenizer, ready_tokenizer
from lmft_job.models.config import fresh_config, position_limit
from lmft_job.models.device import Arithmetic
from lmft_job.models.next_token import require_next_token
from lmft_job.models.published import save_tokenizer
from lmft_job.models.sources.source import fetch_source

CPU = Arithmetic(torch.device("cpu"))
TINY = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 64}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Trained on a few words."""
    return tokenizers.train(iter([["the river of Ghent is wide and cold"] * 4]), 300, Task.CAUSAL_LM)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no folder"):
        fetch_source(f"file://{tmp_path}/nothing", tmp_path, field="spec.model.name")


@pytest.mark.parametrize("kind", ["gpt2", "bert", "roberta", "electra"])
def test_a_causal_model_does_not_see_the_token_it_is_to_predict(kind: str, tokenizer: Any) -> None:
    small = {"n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 64}
    if kind != "gpt2":
        small = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32, "max_position_embeddings": 64}
    config = fresh_config({"model_type": kind, **small}, tokenizer, None)

    model = build_model(Task.CAUSAL_LM, config, tokenizer, None, "spec.model.fromConfig", seed=1).model.eval()

    ids = torch.arange(20, 36)[None]
    changed = ids.clone()
    changed[0, -1] = 100
    with torch.no_grad():
        before, after = model(ids).logits, model(changed).logits
    torch.testing.assert_close(before[:, :-1], after[:, :-1])
    assert not torch.equal(before[:, -1], after[:, -1])


SEQ2SEQ = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64,
}  # fmt: skip
NOT_CAUSAL: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian"), SEQ2SEQ),
    **dict.fromkeys(("mbart", "mvp", "pegasus", "plbart"), SEQ2SEQ),
    "trocr": {name: value for name, value in SEQ2SEQ.items() if not name.startswith("encoder")},
    "whisper": {name: value for name, value in SEQ2SEQ.items() if name != "max_position_embeddings"},
    "prophetnet": {
        "hidden_size": 32, "num_encoder_layers": 1, "num_decoder_layers": 1, "num_encoder_attention_heads": 2,
        "num_decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64,
    },
    "xlm": {"n_layers": 1, "n_heads": 2, "emb_dim": 32, "max_position_embeddings": 64},
    "xlnet": {"n_layer": 1, "n_head": 2, "d_model": 32, "d_inner": 64},
    "cpmant": {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "dim_head": 16, "dim_ff": 64},
}  # fmt: skip


@pytest.mark.parametrize("kind", NOT_CAUSAL)
def test_a_head_that_learns_to_copy_what_it_sees_is_refused_by_name_and_by_trial(kind: str, tokenizer: Any) -> None:
    config = fresh_config({"model_type": kind, **NOT_CAUSAL[kind]}, tokenizer, None)
    with pytest.raises(InvalidError, match=f"spec.task: CausalLM does not work with a model of type {kind}"):
        build_model(Task.CAUSAL_LM, config, tokenizer, None, "spec.model.fromConfig", seed=1)

    model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(InvalidError, match="its loss scores each token against itself"):
        require_next_token(model, Task.CAUSAL_LM, 64)


def test_a_head_that_sees_ahead_is_refused_by_trial(tokenizer: Any) -> None:
    config = fresh_config({"model_type": "bert", **SMALL}, tokenizer, None)
    config.is_decoder = False
    model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(InvalidError, match="it sees the token to predict"):
        require_next_token(model, Task.CAUSAL_LM, 64)


def test_the_trial_changes_neither_weights_nor_mode_nor_random_state(tokenizer: Any) -> None:
    model = transformers.AutoModelForCausalLM.from_config(fresh_config(TINY, tokenizer, None)).train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()

    require_next_token(model, Task.CAUSAL_LM, 64)

    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_the_model_of_few_positions_answers_a_plain_pipeline(tokenizer: Any, tmp_path: Path) -> None:
    model = build_model(
        Task.CAUSAL_LM, fresh_config(TINY, tokenizer, None), tokenizer, None, "spec.model", seed=1
    ).model
    model.generation_config.max_length = 64
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    [answer] = transformers.pipeline("text-generation", model=str(tmp_path), device="cpu")("the river")

    assert answer["generated_text"].startswith("the river")


def test_a_fresh_config_takes_vocabulary_and_ids_from_the_tokenizer(tokenizer: Any) -> None:
    config = fresh_config(TINY, tokenizer, None)
    assert config.vocab_size == len(tokenizer)
    assert config.eos_token_id == config.pad_token_id == tokenizer.eos_token_id


def test_end_of_text_pads_where_there_is_no_padding_token(tokenizer: Any) -> None:
    bare = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|endoftext|>")
    assert ready_tokenizer(bare, Task.CAUSAL_LM).pad_token_id == bare.eos_token_id


def test_masked_lm_needs_a_mask_token(tokenizer: Any) -> None:
    with pytest.raises(InvalidError, match="mask token"):
        ready_tokenizer(tokenizer, Task.MASKED_LM)


def test_classification_needs_a_token_to_pad_with(tokenizer: Any) -> None:
    bare = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(InvalidError, match="neither a padding nor an end-of-text token"):
        ready_tokenizer(bare, Task.SEQUENCE_CLASSIFICATION)


def test_a_tokenizer_without_fast_version_is_refused(tmp_path: Path) -> None:
    transformers.CanineTokenizer().save_pretrained(tmp_path)
    with pytest.raises(InvalidError, match=r"its tokenizer CanineTokenizer has no fast version"):
        load_tokenizer(tmp_path, "spec.model.name")


def test_a_half_precision_checkpoint_is_trained_in_fp32(tokenizer: Any, tmp_path: Path) -> None:
    config = fresh_config(TINY, tokenizer, None)
    transformers.GPT2LMHeadModel(config).to(torch.bfloat16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_config(tmp_path, "spec.model.name", trust_remote_code=False, labels=None)
    model = build_model(Task.CAUSAL_LM, loaded, tokenizer, tmp_path, "spec.model.name", seed=1).model
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_pickled_weights_are_refused(tokenizer: Any, tmp_path: Path) -> None:
    config = fresh_config(TINY, tokenizer, None)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(InvalidError, match="safetensors"):
        build_model(Task.CAUSAL_LM, config, tokenizer, tmp_path, "spec.model.name", seed=1)


OPT = {
    **{name: value for name, value in SMALL.items() if name != "intermediate_size"},
    "ffn_dim": 64, "word_embed_proj_dim": 32,
}  # fmt: skip
ARCHITECTURES: list[tuple[Task, str, dict[str, Any]]] = [
    (Task.CAUSAL_LM, "gpt2", TINY),
    (Task.CAUSAL_LM, "llama", SMALL),
    (Task.CAUSAL_LM, "qwen3", {**SMALL, "num_key_value_heads": 1, "head_dim": 16}),
    (Task.CAUSAL_LM, "gpt_neox", SMALL),
    (Task.CAUSAL_LM, "opt", OPT),
    (Task.CAUSAL_LM, "bloom", {"hidden_size": 32, "n_layer": 1, "n_head": 2}),
    (Task.MASKED_LM, "bert", SMALL),
    (Task.MASKED_LM, "roberta", SMALL),
    (Task.MASKED_LM, "distilbert", {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64}),
    (Task.MASKED_LM, "electra", {**SMALL, "embedding_size": 32}),
    (Task.MASKED_LM, "albert", {**SMALL, "embedding_size": 16}),
    (Task.SEQUENCE_CLASSIFICATION, "distilbert", {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64}),
    (Task.SEQUENCE_CLASSIFICATION, "deberta-v2", SMALL),
    (Task.SEQUENCE_CLASSIFICATION, "gpt2", TINY),
]


@pytest.mark.parametrize(("task", "kind", "given"), ARCHITECTURES, ids=lambda value: str(value)[:20])
def test_any_architecture_that_the_auto_classes_know_is_evaluated_and_answers(
    task: Task, kind: str, given: dict[str, Any]
) -> None:
    tokenizer = tokenizers.train(iter([["the river of Ghent is wide and cold"] * 4]), 300, task)
    labels = ["cold", "warm"] if task == Task.SEQUENCE_CLASSIFICATION else None
    config = fresh_config({**given, "model_type": kind}, tokenizer, labels)
    model = build_model(task, config, tokenizer, None, "spec.model.fromConfig", seed=1).model
    limit = position_limit(config, tokenizer)
    ids = [tokenizer(text)["input_ids"] for text in ("the river is wide", "the river of Ghent")]
    rows = [{"input_ids": torch.tensor(row)[None], "labels": _labels(task, row)} for row in ids]
    if task == Task.CAUSAL_LM:
        require_next_token(model, Task.CAUSAL_LM, limit)
    measured = evaluate_held_out(model, rows, lambda items: items[0], task, batch_size=1, arithmetic=CPU)  # type: ignore[arg-type]
    assert 0 < measured.figures.loss < 20
    assert measured.units is not None
    prompt = "the river of <mask>" if task == Task.MASKED_LM else "the river"
    sample = SampleSettings((prompt,), max_new_tokens=4, top_k=3, top_p=0.95)
    [answer] = answer_prompts(model, tokenizer, task, sample, seed=1, limit=limit, arithmetic=CPU)
    assert answer or task == Task.CAUSAL_LM


def test_what_a_mixture_of_experts_adds_to_its_loss_is_no_likelihood() -> None:
    tokenizer = tokenizers.train(iter([["the river of Ghent is wide and cold"] * 4]), 300, Task.CAUSAL_LM)
    given = {
        **SMALL,
        "model_type": "mixtral",
        "num_local_experts": 4,
        "router_aux_loss_coef": 1.0,
        "num_key_value_heads": 1,
    }
    figures = {}
    for told in (True, False):
        config = fresh_config({**given, "output_router_logits": told}, tokenizer, None)
        model = build_model(Task.CAUSAL_LM, config, tokenizer, None, "spec.model.fromConfig", seed=1).model
        rows = [{name: torch.arange(start, start + 12)[None] for name in ("input_ids", "labels")} for start in (5, 90)]
        measured = evaluate_held_out(
            model,
            rows,
            lambda items: items[0],
            Task.CAUSAL_LM,
            batch_size=1,
            arithmetic=CPU,  # type: ignore[arg-type]
        )
        figures[told] = measured.figures
    assert figures[True].perplexity == pytest.approx(figures[False].perplexity, rel=1e-6)
    # What a plain Trainer reports has it.
    assert figures[True].trainer_loss > figures[False].trainer_loss + 0.5


def _labels(task: Task, row: list[int]) -> torch.Tensor:
    return torch.tensor([1] if task == Task.SEQUENCE_CLASSIFICATION else [row])


def test_the_mask_is_written_alike_whatever_the_tokenizers_own_is() -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "milky", "way", "is", "a", "galaxy", "wide", "."]
    core = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = BertPreTokenizer()
    own = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]", sep_token="[SEP]"
    )
    transformers.set_seed(1)
    config = transformers.BertConfig(**SMALL, vocab_size=len(words))
    model = transformers.BertForMaskedLM(config).eval()
    answers = {}
    for prompt in ("the milky way is a <mask> galaxy .", "the milky way is a [MASK] galaxy ."):
        check_prompts(SampleSettings((prompt,), 8, 8, 0.9), own, Task.MASKED_LM, 64)
        sample = SampleSettings((prompt,), max_new_tokens=1, top_k=3, top_p=1.0)
        [answers[prompt]] = answer_prompts(model, own, Task.MASKED_LM, sample, seed=1, limit=64, arithmetic=CPU)
    first, second = answers.values()
    assert first == second
    assert len(first.split(", ")) == 3
    with torch.no_grad():
        scores = model(**own("the milky way is a [MASK] galaxy .", return_tensors="pt")).logits[0, 5].softmax(-1)
    assert first.startswith(f"{words[int(scores.argmax())]} ({float(scores.max()):.3f})")


def test_a_task_without_a_head_for_the_model_is_refused(tokenizer: Any) -> None:
    with pytest.raises(InvalidError, match=r"spec\.task: MaskedLM does not work with a model of type gpt2"):
        build_model(
            Task.MASKED_LM, fresh_config(TINY, tokenizer, None), tokenizer, None, "spec.model.fromConfig", seed=1
        )


def test_a_model_that_carries_its_own_code_is_refused_unless_trusted(tmp_path: Path) -> None:
    body = {"model_type": "homemade", "auto_map": {"AutoConfig": "code.HomeConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(body))
    with pytest.raises(InvalidError, match="code from its repository"):
        load_config(tmp_path, "spec.model.name", trust_remote_code=False, labels=None)


def test_a_folder_that_is_no_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"^spec\.model\.name: has no config\.json\. Is it a model's folder\?$"):
        load_config(tmp_path, "spec.model.name", trust_remote_code=False, labels=None)


def test_a_word_of_a_megabyte_does_not_hold_up_the_training_of_a_tokenizer() -> None:
    """Uncut, it would take hours: the time grows with the square."""
    short = ["the river of Ghent is wide and cold"] * 4
    trained = tokenizers.train(iter([[*short, "ACGTTGCA" * 125_000]]), 300, Task.CAUSAL_LM)

    assert len(trained) == 300
    assert json.loads(trained.backend_tokenizer.to_str())["pre_tokenizer"]["type"] == "ByteLevel"
    assert trained.decode(trained("ACGTTGCA" * 1000)["input_ids"]) == "ACGTTGCA" * 1000


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="tokenizer cannot be loaded"):
        load_tokenizer(tmp_path, "spec.model.name")


def test_the_tokenizers_own_limit_counts_where_it_is_smaller(tokenizer: Any) -> None:
    own = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, model_max_length=5)
    assert position_limit(transformers.GPT2Config(n_positions=64), own) == 5


def test_a_published_tokenizer_is_for_transformers_4_too_and_knows_nothing_of_this_machine(
    tokenizer: Any, tmp_path: Path
) -> None:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<river>"]})
    tokenizer.save_pretrained(tmp_path / "in")
    loaded = load_tokenizer(tmp_path / "in", "spec.model.name")

    save_tokenizer(loaded, tmp_path / "out")

    stored = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "the <river> of Ghent"
    assert stored["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"local_files_only", "is_local", "name_or_path", "extra_special_tokens"} & stored.keys()
    assert str(tmp_path) not in json.dumps(stored)
    assert again(text)["input_ids"] == loaded(text)["input_ids"]
    assert "<river>" in again.all_special_tokens


def test_a_published_tokenizer_says_which_inputs_it_makes(tokenizer: Any, tmp_path: Path) -> None:
    silent = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    silent.save_pretrained(tmp_path / "in")
    assert "model_input_names" not in json.loads((tmp_path / "in" / "tokenizer_config.json").read_text())

    save_tokenizer(silent, tmp_path / "out")

    # transformers 4.57 would add token_type_ids.
    stored = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert stored["model_input_names"] == ["input_ids", "attention_mask"]
