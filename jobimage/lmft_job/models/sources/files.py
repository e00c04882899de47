"""A safe copy of a model's folder: only known files, with known settings, and nothing that leads out of the folder.

transformers passes every key of ``tokenizer_config.json`` to the tokenizer's class, and several accept a path there: a
``vocab`` that is a string is opened, and its lines become tokens that a sample then shows. Other files name files,
folders and repositories too. So nothing is loaded from the source itself: known files are copied, settings are
written from a list of keys, weights are linked. Anything not on the lists is left out, with a note; only a
vocabulary outside the folder is refused, since without it there is no tokenizer.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmft_job.errors import InvalidError
from lmft_job.models.sources.counts import excessive
from lmft_job.process.secrets import refuse_private

Say = Callable[[str], None]

TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER = "tokenizer.json"
CONFIG = "config.json"
GENERATION = "generation_config.json"
ADAPTER = "adapter_config.json"
TEMPLATES = "additional_chat_templates"

_INDEX = ".safetensors.index.json"
_WEIGHTS = ".safetensors"
_TEXTS = (".txt", ".jinja", ".model", ".vocab", ".bpe", ".spm", ".tiktoken")
_VOCABULARIES = frozenset({
    "vocab.json", "merges.json", "tekken.json", "sentencepiece.model.json", "byte_maps.json", "entity_vocab.json",
    "word_shape.json", "word_pronunciation.json", "emoji.json", "normalizer.json", "bytes_to_unicode.json",
})  # fmt: skip
"""JSON that is read as data only; the file's name is fixed by the tokenizer's class, not by the folder."""

_TOKENIZER_KEYS = frozenset({
    "tokenizer_class", "added_tokens_decoder", "additional_special_tokens", "extra_special_tokens",
    "model_specific_special_tokens", "chat_template", "response_schema", "response_template", "chat_control_tokens",
    "tool_use_template", "grounded_generation_template", "model_max_length", "max_len", "max_length", "padding_side",
    "truncation_side", "padding", "truncation", "pad_to_multiple_of", "stride", "truncation_strategy",
    "pad_token_type_id", "model_input_names", "clean_up_tokenization_spaces",
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", "split_special_tokens",
    "spaces_between_special_tokens", "sanitize_control_tokens", "special_tokens_pattern", "token_type_ids_pattern",
    "token_type_ids_include_special_tokens", "return_token_type_ids", "add_prefix_space", "add_bos_token",
    "add_eos_token", "add_dummy_prefix", "do_lower_case", "do_lowercase", "do_lowercase_and_remove_accent",
    "do_basic_tokenize", "do_clean_text", "do_split_on_punc", "do_upper_case", "do_word_tokenize",
    "do_subword_tokenize", "word_tokenizer_type", "subword_tokenizer_type", "strip_accents", "tokenize_chinese_chars",
    "never_split", "clean_text", "wordpieces_prefix", "trim_offsets", "errors", "legacy", "legacy_behaviour",
    "use_default_system_prompt", "keep_accents", "remove_space", "extra_ids", "offset", "mask_token_sent",
    "num_madeup_words", "src_lang", "tgt_lang", "source_lang", "target_lang", "language", "task", "predict_timestamps",
    "language_codes", "lang_codes", "langs", "lang2id", "id2lang", "separate_vocabs", "use_source_tokenizer",
    "normalization", "normalize", "normalize_text", "split_by_punct", "unk_id", "vocab_type", "reduce_len",
    "preserve_case", "strip_handles", "max_input_chars_per_word", "only_label_first_subword", "cls_token_box",
    "sep_token_box", "pad_token_box", "pad_token_label", "entity_token_1", "entity_token_2", "max_entity_length",
    "max_mention_length", "fix_mistral_regex", "split_punct", "lowercase", "fuse_unk", "byte_fallback", "backend",
})  # fmt: skip
"""Keys of tokenizer_config.json, besides vocabularies and names ending like a token's. None is a path to its class."""
_LENGTHS = frozenset({"model_max_length", "max_len", "max_length"})
_INLINE = frozenset({"vocab", "merges", "entity_vocab"})
_NAMES_A_FILE = re.compile(
    r"vocab|merges|entity_vocab|source_spm|target_spm|rewriting_rules|tags_dict|(.*_)?(file|path|dir)"
)
_BOOKKEEPING = frozenset({
    "tokenizer_file", "special_tokens_map_file", "added_tokens_file", "tokenizer_config_file",
    "chat_template_file", "cache_dir", "output_dir", "save_dir", "gguf_file",
})  # fmt: skip
_ORIGIN = re.compile(r"_?(.*_)?name_or_path")
"""These and the keys above record where files were when somebody saved them; those in the folder are used."""
_PATHS = re.compile(r".*_(file|path|dir|spm)")
_TOKEN_KEYS = frozenset({"content", "single_word", "lstrip", "rstrip", "normalized", "special", "__type"})
_NAMED_TOKENS = frozenset({"additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens"})

_NEVER = frozenset({
    "_name_or_path", "name_or_path", "base_model_name_or_path", "gguf_file", "transformers_weights",
    "configuration_files", "custom_generate", "trust_remote_code", "use_kernels", "kernel_config", "compile_config",
    "assistant_model", "index_path", "passages_path", "_commit_hash",
    "local_files_only", "is_local", "cache_dir",
})  # fmt: skip
"""Keys of config.json and generation_config.json, at every depth, that lead to files or code elsewhere."""
_IMPLEMENTATION = re.compile(r"_?(attn|experts)_implementation(_internal)?")
"""A value with a slash is a repository of compiled kernels."""


@dataclass
class Findings:
    """What a check of settings found.

    Attributes:
        dropped: names that are left out.
        refused: problems by name, as text that follows a file's name.
    """

    dropped: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def readable_copy(folder: Path, copy: Path, where: str, say: Say, *, weights: bool = False) -> Path:
    """A copy of a model's or tokenizer's folder that is safe to load from.

    Args:
        folder: from any source.
        copy: target; created here.
        where: manifest field to name in errors, such as ``spec.model.name``.
        say: called with a note on what is left out.
        weights: link the safetensors, and take their index, too.

    Raises:
        InvalidError: a vocabulary or weights outside of the folder, or files that cannot be parsed.
    """
    copy.mkdir(parents=True)
    dropped, problems, whole = [], [], (folder / TOKENIZER).is_file()
    if (folder / ADAPTER).exists() and not (folder / CONFIG).exists():
        raise InvalidError(
            [
                f"{where}: is an adapter, not a full model. Merge it into its base model, and use the folder of "
                "the merged model."
            ]
        )
    for path in sorted(_files(folder)):
        name = path.relative_to(folder).as_posix()
        try:
            if name.endswith(_WEIGHTS) and not name.startswith("adapter_"):
                if weights:
                    refuse_private(Path(os.path.realpath(path)), where)
                    (copy / name).symlink_to(os.path.realpath(path))
            elif name.endswith(_INDEX):
                if weights:
                    _write(copy / name, _index(_read(path, folder)))
            elif name in _SETTINGS:
                seen = Findings()
                _write(copy / name, _SETTINGS[name](_read(path, folder), seen))
                # With tokenizer.json, the files that a tokenizer can be built from are not needed.
                unused = [key for key in seen.refused if _PATHS.fullmatch(key)] if whole else []
                dropped += [f"{key} of {name}" for key in (*seen.dropped, *unused)]
                problems += [f"{where}: its {name} {words}" for key, words in seen.refused.items() if key not in unused]
            elif name == TOKENIZER:
                _inside(path, folder)
                _check_tokenizer(_read(path, folder))
                shutil.copyfile(path, copy / name)
            elif name in _VOCABULARIES or name.endswith(_TEXTS):
                _inside(path, folder)
                (copy / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(path, copy / name)
        except _UnusableError as error:
            problems.append(f"{where}: its {name} {error}")
        except RecursionError:
            problems.append(f"{where}: its {name} nests too deep")
        except OSError as error:
            problems.append(f"{where}: its {name} cannot be read ({error.strerror})")
    if problems:
        raise InvalidError(problems)
    if dropped:
        say(f"{where}: ignored, since nothing here needs it: {_some(dropped)}")
    return copy


class _UnusableError(Exception):
    """A file that is not accepted; the message follows its name."""


def _files(folder: Path) -> Iterator[Path]:
    """Files of a folder and of its chat templates; nothing deeper is ever loaded. Pipes and devices are skipped."""
    for inner in (folder, folder / TEMPLATES):
        if inner.is_dir() and not (inner != folder and inner.is_symlink()):
            yield from (path for path in inner.iterdir() if os.path.isfile(path))


def _inside(path: Path, folder: Path) -> None:
    """Refuse a link that leads out of the folder; the hub's own cache keeps files two levels up, beside snapshots."""
    root = Path(os.path.realpath(folder))
    home = root.parent.parent if root.parent.name == "snapshots" else root
    if not Path(os.path.realpath(path)).is_relative_to(home):
        raise _UnusableError(f"is a link to {os.readlink(path)!r}, outside of the folder; put the file itself there")


def _read(path: Path, folder: Path) -> dict[str, Any]:
    _inside(path, folder)
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _UnusableError(f"is not JSON ({type(error).__name__}: {str(error)[:100]})") from error
    if not isinstance(body, dict):
        raise _UnusableError("does not contain a JSON object")
    return body


def _write(path: Path, body: dict[str, Any]) -> None:
    path.write_text(json.dumps(body, ensure_ascii=False, indent=1), encoding="utf-8")


def tokenizer_settings(given: dict[str, Any], seen: Findings) -> dict[str, Any]:
    """The keys of tokenizer_config.json that a tokenizer needs; vocabularies only if they are data."""
    kept: dict[str, Any] = {}
    seen.refused |= _excessive({key: value for key, value in given.items() if key not in _INLINE})
    for key, value in given.items():
        if value is None:
            continue
        if key in _INLINE and isinstance(value, dict | list):
            kept[key] = value
        elif key in _NAMED_TOKENS and isinstance(value, dict):
            kept[key] = {name: token for name, token in value.items() if not _NAMES_A_FILE.fullmatch(name)}
        elif key == "added_tokens_decoder" and isinstance(value, dict):
            kept[key] = {index: _token(token) for index, token in value.items()}
        elif (key == "tokenizer_class" and not _is_name(value)) or (key in _LENGTHS and not _is_length(value)):
            seen.dropped.append(key)
        elif key in _TOKENIZER_KEYS or _is_token(key, value):
            kept[key] = value
        elif _lies_elsewhere(key, value):
            seen.refused[key] = _elsewhere(key, value)
        else:
            seen.dropped.append(key)
    return kept


def special_tokens(given: dict[str, Any], seen: Findings) -> dict[str, Any]:
    """The tokens of special_tokens_map.json: its other keys would be passed to the class like settings."""
    kept = {}
    for key, value in given.items():
        if key in _NAMED_TOKENS or _is_token(key, value):
            if isinstance(value, dict) and key in _NAMED_TOKENS:
                kept[key] = {name: token for name, token in value.items() if not _NAMES_A_FILE.fullmatch(name)}
            else:
                kept[key] = _token(value)
        elif _lies_elsewhere(key, value):
            seen.refused[key] = _elsewhere(key, value)
        else:
            seen.dropped.append(key)
    return kept


def added_tokens(given: dict[str, Any], seen: Findings) -> dict[str, Any]:
    """The ids by token of added_tokens.json."""
    seen.dropped += [key for key, value in given.items() if not isinstance(value, int)]
    return {key: value for key, value in given.items() if isinstance(value, int)}


def model_settings(given: dict[str, Any], seen: Findings) -> dict[str, Any]:
    """config.json or generation_config.json without keys that lead elsewhere, at every depth."""
    seen.refused |= _excessive(given)

    def kept(key: str, value: Any) -> bool:
        leads_away = bool(_IMPLEMENTATION.fullmatch(key)) and "/" in str(value)
        if key in _NEVER or leads_away:
            seen.dropped.append(key)
            return False
        return True

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(inner) for key, inner in value.items() if kept(key, inner)}
        return [clean(inner) for inner in value] if isinstance(value, list) else value

    cleaned: dict[str, Any] = clean(given)
    return cleaned


def template(given: dict[str, Any], seen: Findings) -> dict[str, Any]:
    """The template of chat_template.json, the format used before .jinja files."""
    seen.dropped += [key for key in given if key != "chat_template"]
    return {key: value for key, value in given.items() if key == "chat_template"}


_SETTINGS: dict[str, Callable[[dict[str, Any], Findings], dict[str, Any]]] = {
    TOKENIZER_CONFIG: tokenizer_settings,
    "special_tokens_map.json": special_tokens,
    "added_tokens.json": added_tokens,
    CONFIG: model_settings,
    GENERATION: model_settings,
    "chat_template.json": template,
}


def _check_tokenizer(body: dict[str, Any]) -> None:
    """Some classes receive vocabulary and merges of tokenizer.json, and open them if they are strings."""
    model = body.get("model")
    if not isinstance(model, dict):
        raise _UnusableError("has no model")
    for key in ("vocab", "merges"):
        if not isinstance(model.get(key, []), dict | list):
            raise _UnusableError(_elsewhere(f"model.{key}", model[key]))
    if not isinstance(body.get("added_tokens", []), list):
        raise _UnusableError("has added_tokens that are not a list")


def _index(body: dict[str, Any]) -> dict[str, Any]:
    """The index of sharded weights, which may only name files of the folder."""
    names = body.get("weight_map")
    if not isinstance(names, dict):
        raise _UnusableError("has no weight_map")
    for name in names.values():
        if not (isinstance(name, str) and _is_plain(name) and name.endswith(_WEIGHTS)):
            raise _UnusableError(f"names {name!r}, which is not a safetensors file of the folder")
    kept: dict[str, Any] = {"metadata": body["metadata"]} if isinstance(body.get("metadata"), dict) else {}
    return {**kept, "weight_map": names}


def _excessive(given: dict[str, Any]) -> dict[str, str]:
    return {key: f"has {key}, which {words}" for key, words in excessive(given)}


def _is_token(key: str, value: Any) -> bool:
    return key.endswith("_token") and isinstance(value, str | dict)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isidentifier()


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 1


def _token(value: Any) -> Any:
    return {key: part for key, part in value.items() if key in _TOKEN_KEYS} if isinstance(value, dict) else value


def _is_plain(value: Any) -> bool:
    return isinstance(value, str) and value == os.path.basename(value) and value not in ("", ".", "..")


def _lies_elsewhere(key: str, value: Any) -> bool:
    """Whether a setting names a vocabulary by a path; keys that record where files were once saved do not count."""
    named = bool(_NAMES_A_FILE.fullmatch(key)) and key not in _BOOKKEEPING and not _ORIGIN.fullmatch(key)
    return named and isinstance(value, str) and not _is_plain(value)


def _elsewhere(key: str, value: Any) -> str:
    return f"names {str(value)[:200]!r} as {key}; a vocabulary must stand in it, or be a file of the folder"


def _some(names: list[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name[:80] for name in names[:most]) + more
