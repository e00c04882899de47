"""Whether the model that ``lmft init`` writes down has a chat template, as far as that can be seen here."""

import json
from pathlib import Path

from lmft_api.addresses import decoded
from lmft_job.cli.init.proposal import CHAT_MODEL

_FILES = ("chat_template.jinja", "chat_template.json")
_MOST_BYTES = 16 << 20


def has_chat_template(model: str) -> bool | None:
    """Whether a model has a chat template; None where its files are not on this machine."""
    if model == CHAT_MODEL:
        return True
    if not model.startswith("file://"):
        return None
    folder = Path(decoded(model).removeprefix("file://"))
    try:
        if any((folder / name).is_file() for name in _FILES):
            return True
        with (folder / "tokenizer_config.json").open("rb") as file:
            settings = json.loads(file.read(_MOST_BYTES))
        return bool(settings.get("chat_template"))
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
