"""Which tokens of a conversation are trained on: ours beside TRL's masks, over conversations drawn by chance.

TRL is no dependency: ``pip install --target FOLDER --no-deps trl``, then
``PYTHONPATH=tests .venv/bin/python bench/chat_masks.py FOLDER [--count 1000] [--tokenizer FOLDER]``.
The templates are those of TRL's folder ``chat_templates`` (Apache License 2.0), with TRL's generation marks. Ours are
computed twice: from the marks, and from the same template without them, by prefixes.

A difference is explained where it is white space that TRL trains on and no model writes: between the header, which
generation begins after, and the answer, or after the end token, where generation has
stopped; and the token that ends the whole conversation, after that of its last answer (Phi 3).
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from support.chats import drawn_chat, tokenizer_with

from lmft_api.spec import TrainOn
from lmft_job.data.chat.masks import mark
from lmft_job.data.chat.messages.conversations import from_messages
from lmft_job.data.chat.messages.wrong import BadRowError
from lmft_job.data.chat.template.settled import settle_template, special_tokens, template_of
from lmft_job.data.chat.template.turns import write

DAY = "2026-03-04"
CASES = {
    "ChatML with tools (Qwen 2.5)": ("qwen2_5_training", {"tools": True}),
    "Llama 3": ("llama3_training", {}),
    "Qwen3, thinking": ("qwen3_training", {"tools": True, "thinking": True}),
    "Qwen3, without thinking": ("qwen3_instruct_2507_training", {"tools": True}),
    "Gemma 3": ("gemma3_training", {}),
    "Phi 3": ("phi3_training", {}),
}


def without_marks(template: str) -> str:
    """The same output: a condition that holds stands in the place of each mark."""
    return (
        template.replace("endgeneration", "endif")
        .replace("generation %}", "if true %}")
        .replace("generation -%}", "if true -%}")
    )


def ours(tokenizer: Any, messages: list[Any]) -> np.ndarray[Any, Any] | str:
    """Which tokens we train on, or why the row is left out."""
    conversation = from_messages(messages, None, "messages")
    try:
        written = write(template_of(tokenizer, DAY), conversation, special_tokens(tokenizer))
    except BadRowError as error:
        return error.cause
    row = mark(tokenizer, [written], [conversation["messages"]], TrainOn.ANSWERS)[0]
    return row.cause if isinstance(row, BadRowError) else row.trained


def explained(tokenizer: Any, ids: list[int], at: int, mine: Any, theirs: Any) -> bool:
    """Whether TRL trains here on white space beside an answer of ours, or on the end of the conversation."""
    if mine[at] or not theirs[at] or tokenizer.decode([ids[at]]).strip() not in ("", tokenizer.eos_token):
        return False
    left = at - 1
    while left >= 0 and not mine[left] and theirs[left]:
        left -= 1
    right = at + 1
    while right < len(ids) and not mine[right] and theirs[right]:
        right += 1
    return bool(mine[left] or (right < len(ids) and mine[right]))


def compare(template: str, given: Any, count: int, drawn: dict[str, bool]) -> Counter[str]:
    """Conversations by what came of the comparison, and tokens that differ."""
    import random

    from lmft_api.spec import ChatTemplate

    draw, found = random.Random(template), Counter[str]()
    marked = settle_template(given(), ChatTemplate.parse({"text": template}))
    plain = settle_template(given(), ChatTemplate.parse({"text": without_marks(template)}))
    for _ in range(count):
        messages = drawn_chat(draw, **drawn)
        try:
            theirs = marked.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        except Exception:  # noqa: BLE001 - any template raises what it likes
            found["refused by the template"] += 1
            continue
        ids, mask = theirs["input_ids"], np.array(theirs["assistant_masks"]) == 1
        for way, tokenizer in (("marks", marked), ("prefixes", plain)):
            mine = ours(tokenizer, messages)
            if isinstance(mine, str):
                found[f"{way}: left out ({mine})"] += 1
                continue
            if len(mine) != len(mask):
                found[f"{way}: split at a boundary"] += 1
                continue
            differing = np.flatnonzero(mine != mask).tolist()
            unexplained = [at for at in differing if not explained(tokenizer, ids, at, mine, mask)]
            found[f"{way}: compared"] += 1
            found[f"{way}: tokens explained"] += len(differing) - len(unexplained)
            found[f"{way}: conversations unexplained"] += bool(unexplained)
    return found


def main() -> None:
    """Print a line for each template."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trl", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer; default: a small one, trained for it")
    chosen = parser.parse_args()

    def given() -> Any:
        if chosen.tokenizer is None:
            return tokenizer_with("{{ messages }}")
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(chosen.tokenizer)

    for title, (name, drawn) in CASES.items():
        template = (chosen.trl / "trl/chat_templates" / f"{name}.jinja").read_text()
        print(title, dict(sorted(compare(template, given, chosen.count, drawn).items())), flush=True)


if __name__ == "__main__":
    main()
