"""Conversations and templates for tests: small tokenizers, and templates in the notation of published models."""

import random
from functools import cache
from typing import Any

from lmft_api.spec import ChatTemplate
from lmft_api.tasks import Task
from lmft_job.data.chat.template.settled import settle_template
from lmft_job.models import tokenizers

USER, ASSISTANT = "user", "assistant"
QWEN3 = """\
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for message in messages %}
{%- set thought = message.reasoning_content or '' %}{%- set said = message.content %}
{%- if '</think>' in said %}
{%- set thought = said.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
{%- set said = said.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{- '<|im_start|>' + ('user' if message.role == 'tool' else message.role) + '\\n' }}
{%- if message.role == 'assistant' and loop.index0 > ns.last and (loop.last or thought) %}
{{- '<think>\\n' + thought + '\\n</think>\\n\\n' }}
{%- endif %}
{{- said }}
{%- for call in message.tool_calls or [] %}
{{- '\\n<tool_call>\\n' + call.function | tojson + '\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
"""Thinking is written for turns after the last question only, as Qwen3 does."""
DATED = """\
{{- bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' }}
{{- strftime_now('%d %b %Y') + '<|eot_id|>' }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""
"""A default system turn with the day, as Llama 3.1 does."""
MARKED = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' %}{% generation %}{{- message.content }}{% endgeneration %}
{%- else %}{{- message.content }}{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
"""With generation marks, which leave the end token out."""
PHI = """\
{%- for message in messages %}{{- '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- else %}{{- eos_token }}{%- endif %}"""
"""The conversation has an end of its own, after that of its last turn."""
MISTRAL = """\
{{- bos_token or '' }}
{%- set first = messages[0].role == 'system' %}
{%- for message in (messages[1:] if first else messages) %}
{%- if message.role == 'user' %}
{{- '[INST] ' + (messages[0].content + ' ' if first and loop.index0 + 2 >= loop.length else '') }}
{{- message.content + '[/INST]' }}
{%- else %}{{- ' ' + message.content | trim + eos_token }}{%- endif %}{%- endfor %}"""
"""No header before an answer but a space, and the system's text before the last question, as Mistral does."""
WORDS = ("river", "market", "the", "a", "long", "morning", "Größe", "日本", "né", "1,024", "\n", "  two", "fin.", "😀")
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end|>",
           "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]")  # fmt: skip


@cache
def _core(vocabulary: int) -> Any:
    draw = random.Random(3)
    texts = [" ".join(draw.choices(WORDS, k=12)) + "\n\nuser\nassistant: a" for _ in range(200)]
    return tokenizers.train(iter([texts]), vocabulary, Task.CAUSAL_LM)


def tokenizer_with(template: str | None, *, name: str | None = None, vocabulary: int = 400) -> Any:
    """A small tokenizer of its own with a template, by text or by name."""
    import copy

    from tokenizers import AddedToken

    made = copy.deepcopy(_core(vocabulary))
    made.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL], special_tokens=True)
    return settle_template(made, ChatTemplate.parse({"name": name} if name else {"text": template}))


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    """A message."""
    return {"role": role, "content": content, **more}


def chat(*contents: str, system: str | None = None) -> list[dict[str, Any]]:
    """Turns of user and assistant, one after the other."""
    turns = [turn((USER, ASSISTANT)[number % 2], content) for number, content in enumerate(contents)]
    return [turn("system", system), *turns] if system else turns


def drawn_chat(draw: random.Random, *, tools: bool = False, thinking: bool = False, system: bool = True) -> Any:
    """A conversation by chance: unicode, white space at either end, empty turns."""

    def said() -> str:
        return draw.choice(("", "\n", " ")) * draw.randrange(2) + " ".join(draw.choices(WORDS, k=draw.randrange(0, 9)))

    messages = [turn("system", said())] if system and draw.random() < 0.5 else []
    for _ in range(draw.randrange(1, 4)):
        messages.append(turn(USER, said()))
        if tools and draw.random() < 0.4:
            call = {"type": "function", "function": {"name": "look", "arguments": {"at": said()}}}
            messages += [turn(ASSISTANT, "", tool_calls=[call]), turn("tool", said())]
        more = {"reasoning_content": said()} if thinking and draw.random() < 0.5 else {}
        messages.append(turn(ASSISTANT, said(), **more))
    return messages
