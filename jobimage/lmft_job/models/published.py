"""A tokenizer's folder in its published form, which transformers 5 and 4 can load."""

import json
from pathlib import Path
from typing import Any

_CONFIG = "tokenizer_config.json"
# transformers 5 stores how this process loaded the tokenizer; whoever loads it has other folders, and maybe a network.
_OURS = {"is_local", "local_files_only", "name_or_path", "tokenizer_file", "vocab_file", "cache_dir", "backend"}


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save a tokenizer so that transformers 4 knows its class, and without traces of this machine.

    transformers 5 calls the class of every fast tokenizer without one of its own ``TokenizersBackend``, which 4.57
    does not know; both know ``PreTrainedTokenizerFast``.
    """
    tokenizer.save_pretrained(folder)
    path = folder / _CONFIG
    settings = {key: value for key, value in json.loads(path.read_text()).items() if key not in _OURS}
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(settings.get("extra_special_tokens"), list):
        # A list of these has another name in 4.57, which only accepts a mapping under this one; 5 reads both.
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    # Without this setting 4.57 also makes token type ids, and GPT-2, for example, adds an embedding for each.
    settings.setdefault("model_input_names", list(tokenizer.model_input_names))
    path.write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
