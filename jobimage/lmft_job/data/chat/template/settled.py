"""Which template a run uses: a named one, the manifest's text, or the tokenizer's own.

The texts of the named templates are our own, in the notation that each family of models publishes: OpenAI's ChatML,
Meta's Llama 3 (3.1 for tools), Google's Gemma, Mistral (v3), and Hugging Face's Zephyr. Tools in ChatML are written as
NousResearch's Hermes and Qwen do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmft_api.spec import ChatTemplate as Wanted
from lmft_api.spec import ChatTemplateName
from lmft_job.data.chat.template.rendering import (
    ChatTemplate,
    TemplateBrokenError,
    TemplateRefusedError,
    TooSlowError,
)
from lmft_job.errors import InvalidError

_TOOLS = (
    "'You may call these functions. Answer a call with JSON within <tool_call></tool_call>:\\n<tools>' }}"
    "{%- for tool in tools %}{{- '\\n' + tool | tojson }}{%- endfor %}{{- '\\n</tools>'"
)
_CHATML = (
    "{%- set system = messages[0].content if messages[0].role == 'system' else '' %}"
    "{%- if system or tools %}{{- '<|im_start|>system\\n' + system }}"
    "{%- if tools %}{{- ('\\n\\n' if system else '') + " + _TOOLS + " }}{%- endif %}"
    "{{- '<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if not (loop.first and message.role == 'system') %}"
    "{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.reasoning_content %}"
    "{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}{%- endif %}"
    "{{- message.content }}"
    "{%- for call in message.tool_calls or [] %}"
    "{{- ('\\n' if message.content or not loop.first else '') + '<tool_call>\\n' "
    "+ {'name': call.function.name, 'arguments': call.function.arguments} | tojson + '\\n</tool_call>' }}{%- endfor %}"
    "{{- '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
_LLAMA3 = (
    "{{- bos_token or '' }}"
    "{%- if tools %}{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}"
    "{%- if messages[0].role == 'system' %}{{- messages[0].content | trim + '\\n\\n' }}{%- endif %}"
    "{{- 'You may call these functions. Answer a call with JSON of name and parameters.' }}"
    "{%- for tool in tools %}{{- '\\n' + tool | tojson }}{%- endfor %}{{- '<|eot_id|>' }}{%- endif %}"
    "{%- for message in messages %}{%- if not (tools and loop.first and message.role == 'system') %}"
    "{{- '<|start_header_id|>' + ('ipython' if message.role == 'tool' else message.role) + '<|end_header_id|>\\n\\n' }}"
    "{{- message.content | trim }}"
    "{%- for call in message.tool_calls or [] %}{{- ('\\n' if message.content or not loop.first else '') "
    "+ {'name': call.function.name, 'parameters': call.function.arguments} | tojson }}{%- endfor %}"
    "{{- '<|eot_id|>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
_PAIRS = (
    "{{- bos_token or '' }}"
    "{%- set system = messages[0].content | trim if messages[0].role == 'system' else '' %}"
    "{%- set turns = messages[1:] if messages[0].role == 'system' else messages %}"
    "{%- for message in turns %}{%- if message.role != ('assistant' if loop.index0 % 2 else 'user') %}"
    "{{- raise_exception('turns of user and assistant must alternate, beginning with the user, not ' + message.role) }}"
    "{%- endif %}{%- if message.tool_calls %}{{- raise_exception('this template writes no tool calls') }}{%- endif %}"
    "{%- set opening = system + '\\n\\n' if loop.first and system else '' %}"
)
_GEMMA = (
    _PAIRS + "{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else 'user') + '\\n' + opening "
    "+ message.content | trim + '<end_of_turn>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"
)
_MISTRAL = (
    _PAIRS + "{%- if message.role == 'user' %}{{- '[INST] ' + opening + message.content + '[/INST]' }}"
    "{%- else %}{{- ' ' + message.content | trim + eos_token }}{%- endif %}{%- endfor %}"
)
_ZEPHYR = (
    "{%- for message in messages %}{%- if message.tool_calls %}"
    "{{- raise_exception('this template writes no tool calls') }}{%- endif %}"
    "{%- if message.role not in ('system', 'user', 'assistant') %}"
    "{{- raise_exception('this template has no role ' + message.role) }}{%- endif %}"
    "{{- '<|' + message.role + '|>\\n' + message.content + eos_token + '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- endif %}"
)


@dataclass(frozen=True)
class Named:
    """A named template: its text, and the special tokens in it that a tokenizer may lack."""

    text: str
    tokens: tuple[str, ...] = ()
    needs_end: bool = False


NAMED = {
    ChatTemplateName.CHATML: Named(_CHATML, ("<|im_start|>", "<|im_end|>")),
    ChatTemplateName.LLAMA3: Named(_LLAMA3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    ChatTemplateName.GEMMA: Named(_GEMMA, ("<start_of_turn>", "<end_of_turn>")),
    ChatTemplateName.MISTRAL: Named(_MISTRAL, ("[INST]", "[/INST]"), needs_end=True),
    ChatTemplateName.ZEPHYR: Named(_ZEPHYR, needs_end=True),
}
_FIELD = "spec.dataset.chatTemplate"


def settle_template(tokenizer: Any, wanted: Wanted | None) -> Any:
    """Give a tokenizer the template of the run, with which it is published, and the special tokens that this needs.

    Raises:
        InvalidError: there is no template, or it cannot be used.
    """
    if wanted is not None and wanted.name is not None:
        named = NAMED[wanted.name]
        if named.needs_end and tokenizer.eos_token is None:
            raise InvalidError(
                [f"{_FIELD}: {wanted.name} needs an end-of-text token, which the tokenizer lacks; set ChatML"]
            )
        _add(tokenizer, named.tokens)
        tokenizer.chat_template = named.text
    elif wanted is not None:
        tokenizer.chat_template = wanted.text
    elif not _own(tokenizer):
        raise InvalidError(
            [f"{_FIELD}: the tokenizer has no chat template; set one, as in chatTemplate: {{name: ChatML}}"]
        )
    try:
        _try_out(template_of(tokenizer, "2000-01-01"))
    except TemplateBrokenError as error:
        where = f"{_FIELD}.text" if wanted is not None else "spec.model: the tokenizer's chat template"
        raise InvalidError([f"{where}: cannot be used ({error}); correct it, or set {_FIELD}"]) from error
    return tokenizer


_PROBE = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})


def _try_out(template: ChatTemplate) -> None:
    """Render a question with its answer; roles and orders that a template refuses itself are the data's problem.

    Raises:
        TemplateBrokenError: it cannot be rendered, or not in time.
    """
    template.require()
    try:
        template.render(_PROBE)
    except TemplateRefusedError as error:
        if isinstance(error, TooSlowError) or error.__cause__ is not None:
            raise TemplateBrokenError(str(error)) from error


def template_of(tokenizer: Any, day: str) -> ChatTemplate:
    """The template of a settled tokenizer, on a day."""
    tokens: Mapping[str, Any] = tokenizer.special_tokens_map
    return ChatTemplate(_own(tokenizer) or "", {name: str(token) for name, token in tokens.items() if _one(token)}, day)


def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Texts that become one special token wherever they occur, longest first."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted(added | set(tokenizer.all_special_tokens), key=lambda token: (-len(token), token)))


def _own(tokenizer: Any) -> str | None:
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, Mapping):
        template = template.get("default")
    return template if isinstance(template, str) and template else None


def _one(token: Any) -> bool:
    return isinstance(token, str) or hasattr(token, "content")


def _add(tokenizer: Any, tokens: tuple[str, ...]) -> None:
    from tokenizers import AddedToken

    known = tokenizer.get_vocab()
    new = [AddedToken(token, special=True, normalized=False) for token in tokens if token not in known]
    if new:
        tokenizer.add_tokens(new, special_tokens=True)
