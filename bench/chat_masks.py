"""Which tokens of a conversation are trained on: ours beside other masks, over conversations drawn by chance.

TRL is no dependency: ``pip install --target FOLDER --no-deps trl``, then
``PYTHONPATH=tests .venv/bin/python bench/chat_masks.py FOLDER [--count 1000] [--tokenizer FOLDER]``;
without FOLDER, only the templates that TRL has no marks for.
The templates are those of TRL's folder ``chat_templates`` (Apache License 2.0), with TRL's generation marks, and our
own texts in the notation of Llama 3.1, Mistral and SmolLM2, with marks put in by hand. transformers makes the masks of
both (``return_assistant_tokens_mask``). Ours are computed twice: from the marks, and from the same template without
them, by prefixes.

A difference is explained where it is white space that TRL trains on and no model writes: between the header, which
generation begins after, and the answer, or after the end token, where generation has
stopped; and the token that ends the whole conversation, after that of its last answer (Phi 3).
"""

import argparse
from collections import Counter
from datetime import date
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

DAY = date.today().isoformat()
"""transformers writes the day of today where a template asks for it."""
LLAMA31 = """\
{{- bos_token }}
{%- set first = messages[0].role == 'system' %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\nToday Date: ' }}
{{- strftime_now('%d %b %Y') + '\\n\\n' + (messages[0].content | trim if first else '') + '<|eot_id|>' }}
{%- for message in (messages[1:] if first else messages) %}
{{- '<|start_header_id|>' + ('ipython' if message.role == 'tool' else message.role) + '<|end_header_id|>\\n\\n' }}
{%- if message.role == 'assistant' %}
{%- generation %}
{%- for call in message.tool_calls or [] %}
{{- '{"name": "' + call.function.name + '", "parameters": ' + call.function.arguments | tojson + '}' }}
{%- else %}{{- message.content | trim }}{%- endfor %}
{{- '<|eot_id|>' }}{%- endgeneration %}
{%- else %}{{- (message.content | tojson if message.role == 'tool' else message.content | trim) + '<|eot_id|>' }}
{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""
MISTRAL = """\
{{- bos_token }}
{%- set first = messages[0].role == 'system' %}
{%- for message in (messages[1:] if first else messages) %}
{%- if message.role == 'user' %}
{{- '[INST] ' + (messages[0].content + '\\n\\n' if first and loop.index0 + 2 >= loop.length else '') }}
{{- message.content + '[/INST]' }}
{%- else %}{%- generation %}{{- ' ' + message.content | trim + eos_token }}{%- endgeneration %}{%- endif %}
{%- endfor %}"""
"""The system's text stands before the last question, so earlier questions change when a turn is added."""
SMOLLM2 = """\
{%- if messages[0].role != 'system' %}
{{- '<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' %}{%- generation %}{{- message.content + '<|im_end|>' }}{%- endgeneration %}
{%- else %}{{- message.content + '<|im_end|>' }}{%- endif %}
{{- '\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
MARKED_BY_HAND: dict[str, tuple[str, dict[str, bool]]] = {
    "Llama 3.1, with tools and the day": (LLAMA31, {"tools": True}),
    "Mistral": (MISTRAL, {}),
    "SmolLM2": (SMOLLM2, {}),
}
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
    parser.add_argument("trl", type=Path, nargs="?", help="folder that TRL is installed in")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer; default: a small one, trained for it")
    chosen = parser.parse_args()

    def given() -> Any:
        if chosen.tokenizer is None:
            return tokenizer_with("{{ messages }}")
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(chosen.tokenizer)

    templates = dict(MARKED_BY_HAND)
    for title, (name, drawn) in CASES.items() if chosen.trl else ():
        templates[title] = (chosen.trl / "trl/chat_templates" / f"{name}.jinja").read_text(), drawn
    for title, (template, drawn) in templates.items():
        print(title, dict(sorted(compare(template, given, chosen.count, drawn).items())), flush=True)


if __name__ == "__main__":
    main()
