"""A tokenizer's folder as it is published: for whoever loads it, with this transformers or the one before."""

import json
from pathlib import Path
from typing import Any

_CONFIG = "tokenizer_config.json"
# transformers 5 notes how this process came by the tokenizer; its next reader has other folders, and perhaps a network.
_OURS = {"is_local", "local_files_only", "name_or_path", "tokenizer_file", "vocab_file", "cache_dir", "backend"}


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save a tokenizer such that transformers 4 knows its class, and without a word of this machine.

    transformers 5 calls the class of every fast tokenizer without one of its own ``TokenizersBackend``, which 4.57
    does not know; both know ``PreTrainedTokenizerFast``.
    """
    tokenizer.save_pretrained(folder)
    path = folder / _CONFIG
    settings = {key: value for key, value in json.loads(path.read_text()).items() if key not in _OURS}
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(settings.get("extra_special_tokens"), list):
        # A list of these has another name in 4.57, which takes only a mapping by this one; 5 reads both.
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    # Where nothing is said 4.57 makes token type ids too, and GPT-2, for one, adds an embedding for each.
    settings.setdefault("model_input_names", list(tokenizer.model_input_names))
    path.write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
