"""What of a model's files is read, what is left out, and what is refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lmft_job.errors import InvalidError
from lmft_job.models.sources.files import Findings, model_settings, readable_copy, special_tokens, tokenizer_settings

WHERE = "spec.model.name"
TOKEN = {"content": "<s>", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}


def folder_of(tmp_path: Path, **files: Any) -> Path:
    """A folder with files by name, ``__`` for the dot; what is no text is written as JSON."""
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    for name, body in files.items():
        text = body if isinstance(body, str) else json.dumps(body)
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def copied(folder: Path, tmp_path: Path, **more: Any) -> tuple[dict[str, Any], list[str]]:
    """Texts of the copy by name, JSON parsed, and the notes."""
    notes: list[str] = []
    copy = readable_copy(folder, tmp_path / "copy", WHERE, notes.append, **more)
    found = {}
    for path in copy.rglob("*"):
        if path.is_file():
            text = path.read_text()
            found[path.relative_to(copy).as_posix()] = json.loads(text) if path.suffix == ".json" else text
    return found, notes


KEPT: dict[str, Any] = {
    "tokenizer_class": "LlamaTokenizer",
    "added_tokens_decoder": {"0": TOKEN, "1": {**TOKEN, "content": "/etc/passwd"}},
    "additional_special_tokens": ["<|im_start|>", "/not/a/path"],
    "extra_special_tokens": {"image_token": "<image>"},
    "chat_template": "{% for m in messages %}/usr/share/{{ m }}{% endfor %}",
    "bos_token": "<s>",
    "eos_token": {"__type": "AddedToken", "content": "/s"},
    "image_token": "../image",
    "model_max_length": 2048,
    "add_bos_token": True,
    "vocab": {"a": 0, "/b": 1},
    "merges": [["a", "b"]],
}


def test_settings_that_tokenizers_take_are_kept_whatever_their_tokens_look_like() -> None:
    seen = Findings()
    assert tokenizer_settings(KEPT, seen) == KEPT
    assert seen == Findings()


@pytest.mark.parametrize(
    "given",
    [
        {"name_or_path": "/home/somebody/models/x"},
        {"_name_or_path": "/home/somebody/models/x"},
        {"tokenizer_name_or_path": "../base"},
        {"output_dir": "/content/out"},
        {"tokenizer_file": "/root/.cache/huggingface/transformers/16a2f78.d2"},
        {"special_tokens_map_file": "/content/special_tokens_map.json"},
        {"auto_map": {"AutoTokenizer": ["evil/repo--code.Tokenizer", None]}},
        {"init_inputs": ["/etc/passwd"]},
        {"gguf_file": "/etc/passwd"},
        {"vocab_file": "vocab.txt"},
        {"vocab": "vocab.txt"},
        {"sp_model_kwargs": {"model_file": "/etc/passwd"}},
        {"tokenizer_class": "../../evil"},
        {"tokenizer_class": ["a"]},
        {"model_max_length": "x"},
        {"model_max_length": -5},
        {"max_len": [512]},
        {"sudachi_kwargs": {"sudachi_config_path": "/etc/passwd"}},
        {"mecab_kwargs": {"mecab_option": "-r /etc/passwd"}},
        {"files_loaded": ["/etc/passwd"]},
        {"fast_tokenizer_files": ["tokenizer.1.0.0.json"]},
        {"unheard_of": "/etc/passwd"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_what_no_tokenizer_needs_is_left_out_and_refuses_nothing(given: dict[str, Any]) -> None:
    seen = Findings()
    assert tokenizer_settings(given, seen) == {}
    assert seen == Findings(dropped=list(given))


@pytest.mark.parametrize("look", [tokenizer_settings, special_tokens])
@pytest.mark.parametrize(
    "key",
    [
        "vocab", "merges", "vocab_file", "merges_file", "spm_file", "monolingual_vocab_file", "entity_vocab_file",
        "source_spm", "target_spm", "normalizer_file", "emoji_file", "word_shape_file", "word_pronunciation_file",
        "rewriting_rules", "tokenizer_path", "entity_vocab", "src_vocab_file", "tags_dict",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["/etc/passwd", "../key.pem", "inner/vocab.txt", "~/.ssh/id_rsa", ".."])
def test_a_vocabulary_by_path_is_refused(look: Any, key: str, value: str) -> None:
    seen = Findings()
    assert look({key: value}, seen) == {}
    assert list(seen.refused) == [key]
    assert value in seen.refused[key]
    assert key in seen.refused[key]


@pytest.mark.parametrize("file", ["tokenizer_config__json", "special_tokens_map__json"])
def test_where_a_vocabulary_lay_matters_only_without_a_whole_tokenizer(file: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {file: {"vocab_file": "/home/x/vocab.txt", "tokenizer_path": "../a"}}
    name = file.replace("__", ".")
    with pytest.raises(InvalidError, match="as vocab_file; a vocabulary must stand in it"):
        readable_copy(folder_of(tmp_path, **given), tmp_path / "parts", WHERE, print)

    files, notes = copied(folder_of(tmp_path, tokenizer__json={"model": {"vocab": {}}}, **given), tmp_path)

    assert files[name] == {}
    assert notes == [f"{WHERE}: ignored, since nothing here needs it: vocab_file of {name}, tokenizer_path of {name}"]


def test_tokens_named_like_a_file_are_no_settings() -> None:
    given = {"extra_special_tokens": {"vocab_file": "/etc/passwd", "image_token": "<image>"}}
    assert tokenizer_settings(given, Findings()) == {"extra_special_tokens": {"image_token": "<image>"}}
    assert special_tokens(given, Findings()) == {"extra_special_tokens": {"image_token": "<image>"}}


def test_a_configuration_keeps_all_but_what_leads_elsewhere_at_every_depth() -> None:
    given = {
        "model_type": "gpt2", "_name_or_path": "/home/x", "attn_implementation": "evil/kernels", "n_layer": 2,
        "text_config": {"model_type": "llama", "_name_or_path": "x", "rope_parameters": {"rope_theta": 1e4}},
        "transformers_weights": "../../weights.safetensors", "_attn_implementation": "sdpa",
        "layers": [{"gguf_file": "/x", "size": 1}], "local_files_only": True,
    }  # fmt: skip
    seen = Findings()
    assert model_settings(given, seen) == {
        "model_type": "gpt2", "n_layer": 2, "_attn_implementation": "sdpa", "layers": [{"size": 1}],
        "text_config": {"model_type": "llama", "rope_parameters": {"rope_theta": 1e4}},
    }  # fmt: skip
    assert sorted(set(seen.dropped)) == [
        "_name_or_path", "attn_implementation", "gguf_file", "local_files_only", "transformers_weights",
    ]  # fmt: skip


def test_known_files_are_copied_and_others_are_not(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path, config__json={"model_type": "bert", "_name_or_path": "/x"}, vocab__txt="a\nb\n", merges__txt="a b\n",
        chat_template__jinja="{{ messages }}", processor_config__json={"vocab": "/x"}, preprocessor_config__json={},
        modeling_evil__py="import os", pytorch_model__bin="pickle", training_args__json={}, model__gguf="x",
    )  # fmt: skip
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("{{ tools }}")
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.txt").write_text("x")
    os.mkfifo(folder / "pipe.txt")

    found, notes = copied(folder, tmp_path)

    assert found == {
        "config.json": {"model_type": "bert"}, "vocab.txt": "a\nb\n", "merges.txt": "a b\n",
        "chat_template.jinja": "{{ messages }}", "additional_chat_templates/tools.jinja": "{{ tools }}",
    }  # fmt: skip
    assert notes == [f"{WHERE}: ignored, since nothing here needs it: _name_or_path of config.json"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"adapter_config__json": {"base_model_name_or_path": "/x"}}, "is an adapter, not a full model. Merge it"),
        ({"tokenizer__json": {"model": {"type": "WordPiece", "vocab": "/etc/passwd"}}}, "'/etc/passwd' as model.vocab"),
        ({"tokenizer__json": {"model": {"vocab": {}, "merges": "/etc/x"}}}, "'/etc/x' as model.merges"),
        ({"tokenizer__json": {"model": "BPE"}}, "its tokenizer.json has no model"),
        ({"tokenizer_config__json": "[" * 100_000}, "its tokenizer_config.json is not JSON (RecursionError"),
        ({"config__json": "nonsense"}, "its config.json is not JSON"),
        ({"config__json": []}, "its config.json does not contain a JSON object"),
        ({"special_tokens_map__json": {"vocab_file": "/etc/x"}}, "map.json names '/etc/x' as vocab_file"),
        ({"model__safetensors__index__json": {"weight_map": {"w": "../x.safetensors"}}}, "names '../x.safetensors'"),
        ({"model__safetensors__index__json": {"weight_map": {"w": "/x.safetensors"}}}, "names '/x.safetensors'"),
        ({"model__safetensors__index__json": {"weight_map": {"w": "x.bin"}}}, "names 'x.bin', which is not a"),
        ({"model__safetensors__index__json": {"weight_map": {"w": 5}}}, "names 5"),
        ({"model__safetensors__index__json": {}}, "has no weight_map"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_safely_is_refused_with_the_file(files: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidError) as refused:
        copied(folder_of(tmp_path, **files), tmp_path, weights=True)
    assert str(refused.value).startswith(f"{WHERE}: ")
    assert words in str(refused.value)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, config__json="x", tokenizer_config__json={"vocab": "/a", "merges": "/b"})
    with pytest.raises(InvalidError) as refused:
        copied(folder, tmp_path)
    assert len(refused.value.problems) == 3


@pytest.mark.parametrize("name", ["vocab.txt", "config.json", "tokenizer.json", "chat_template.jinja", "spiece.model"])
def test_a_link_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text('{"model": {}}')
    folder = folder_of(tmp_path)
    (folder / name).symlink_to("../key.pem")
    with pytest.raises(InvalidError, match=r"is a link to '\.\./key\.pem', outside of the folder"):
        copied(folder, tmp_path)


def test_links_of_the_hubs_cache_and_links_that_lead_nowhere_are_fine(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--a--b" / "blobs").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "models--a--b" / "blobs" / name).write_text("{}")
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    (snapshot / "vocab.txt").symlink_to("nowhere")
    (snapshot / "merges.txt").symlink_to("merges.txt")
    found, _ = copied(snapshot, tmp_path, weights=True)
    assert sorted(found) == ["config.json", "model.safetensors"]


def test_an_index_and_its_weights_are_taken_when_weights_are_wanted(tmp_path: Path) -> None:
    index = {"metadata": {"total_size": 8}, "weight_map": {"w": "model-00001.safetensors"}}
    folder = folder_of(
        tmp_path, model__safetensors__index__json={**index, "more": "/x"}, adapter_config__json={}, config__json={}
    )
    (folder / "model-00001.safetensors").write_text("weights")
    (folder / "adapter_model.safetensors").write_text("weights")
    found, _ = copied(folder, tmp_path, weights=True)
    assert found == {"model.safetensors.index.json": index, "model-00001.safetensors": "weights", "config.json": {}}


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        (
            "config__json",
            {"num_hidden_layers": 10**9},
            "has num_hidden_layers, which is 1,000,000,000, and at most 4,096",
        ),
        ("config__json", {"n_layer": 10**6}, "has n_layer, which is 1,000,000"),
        ("config__json", {"text_config": {"decoder_layers": 5_000}}, "has text_config.decoder_layers, which is 5,000"),
        ("config__json", {"depths": [2, 2, 10**9]}, "has depths, which is 1,000,000,000"),
        ("config__json", {"num_local_experts": 10**400}, "which is a number of more than 15 digits"),
        ("config__json", {"num_labels": 10**9}, "at most 1,000,000 are read"),
        ("tokenizer_config__json", {"extra_ids": 10**9}, "has extra_ids, which is 1,000,000,000"),
        ("tokenizer_config__json", {"num_madeup_words": 10**10}, "has num_madeup_words"),
    ],
)
def test_a_count_that_would_be_looped_over_is_refused(name: str, settings: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidError) as refused:
        copied(folder_of(tmp_path, **{name: settings}), tmp_path)
    assert said in str(refused.value)
    assert str(refused.value).startswith(f"{WHERE}: its {name.replace('__', '.')} ")


def test_counts_of_published_models_and_other_large_numbers_pass(tmp_path: Path) -> None:
    settings = {
        "num_hidden_layers": 1_000, "n_routed_experts": 512, "vocab_size": 10**6, "max_position_embeddings": 10**7,
        "layer_norm_eps": 1e-5, "num_labels": 100_000, "mlp_layer_type": "x" * 9_000, "rope_theta": 10**9,
    }  # fmt: skip
    assert copied(folder_of(tmp_path, config__json=settings), tmp_path)[0] == {"config.json": settings}


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("config__json", 900), ("config__json", 5_000), ("generation_config__json", 900),
        ("tokenizer_config__json", 5_000), ("special_tokens_map__json", 100_000),
    ],
)  # fmt: skip
def test_settings_that_nest_without_end_are_refused(name: str, levels: int, tmp_path: Path) -> None:
    deep = '{"chat_template":' * levels + "1" + "}" * levels
    with pytest.raises(InvalidError, match=r"nests too deep|is not JSON"):
        copied(folder_of(tmp_path, **{name: deep}), tmp_path)
