"""Writes conversations with a template in a child process: the template is a program of somebody else."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lmft_job.data.chat.messages.conversations import Conversation
from lmft_job.data.chat.messages.wrong import BadRowError
from lmft_job.data.chat.template.rendering import ChatTemplate
from lmft_job.data.chat.template.turns import WrittenConversation, write
from lmft_job.errors import InvalidError
from lmft_job.process.confined import ConfinedError, NoAnswerError, run_confined
from lmft_job.storage import disk_error, is_disk_full

PATIENCE_SECONDS = 120.0
_MEMORY = 2 << 30
"""What the texts may take, beyond what the parent holds."""
_RESULT = "written.json"

Outcome = WrittenConversation | BadRowError


def write_confined(
    template: ChatTemplate, conversations: Sequence[Conversation], specials: Sequence[str], scratch: Path
) -> list[Outcome]:
    """Each conversation as text, or what is wrong with it.

    Args:
        template: of the run.
        conversations: a batch of some megabytes at most.
        specials: the tokenizer's special tokens.
        scratch: folder for temporary files.

    Raises:
        InvalidError: the template takes too long for all of them, or fills the memory.
    """
    if not conversations:
        return []
    with tempfile.TemporaryDirectory(prefix="template-", dir=scratch) as name:
        results = Path(name)

        def work() -> None:
            outcomes = [_outcome(template, conversation, specials) for conversation in conversations]
            (results / _RESULT).write_text(json.dumps(outcomes))

        try:
            run_confined(work, results, results, PATIENCE_SECONDS, _MEMORY)
            found = json.loads((results / _RESULT).read_text())
        except (ConfinedError, NoAnswerError, OSError, ValueError) as error:
            if isinstance(error, OSError) and is_disk_full(error):
                raise disk_error(error, scratch) from error
            raise InvalidError(
                [f"spec.dataset.chatTemplate: the template could not be rendered ({error}); use another one"]
            ) from error
    return [
        WrittenConversation(one["text"], tuple((start, end) for start, end in one["answers"]))
        if "text" in one
        else BadRowError(one["cause"], one["message"])
        for one in found
    ]


def _outcome(template: ChatTemplate, conversation: Conversation, specials: Sequence[str]) -> dict[str, object]:
    try:
        written = write(template, conversation, specials)
    except BadRowError as error:
        return {"cause": error.cause, "message": str(error)}
    return {"text": written.text, "answers": written.answers}
