"""Asking a model: a conversation in tokens up to where the answer begins, and the token that ends the answer."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lmft_api.spec.resolved import SampleSettings, Settings
from lmft_job.data.chat.messages.wrong import BadRowError
from lmft_job.data.chat.template.rendering import ChatTemplate
from lmft_job.data.chat.template.settled import settle_template, special_tokens, template_of
from lmft_job.data.chat.template.turns import write
from lmft_job.data.tokens.core import encode_batch

_PROBE = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})


def today() -> str:
    """The day in UTC, an ISO date."""
    return datetime.now(UTC).date().isoformat()


def settle(settings: Settings, tokenizer: Any, say: Callable[[str], None] = lambda text: None) -> Any:
    """A tokenizer with the run's chat template, if the run has conversations; new tokens are told to ``say``.

    Raises:
        InvalidError: there is no template, or it cannot be used.
    """
    if not settings.dataset.has_conversations:
        return tokenizer
    known = len(tokenizer)
    settled = settle_template(tokenizer, settings.dataset.chat_template)
    if len(settled) > known:
        frozen = ", and an adapter does not train them: choose a template whose tokens the model knows"
        say(
            f"the tokenizer lacked {len(settled) - known} special tokens of the chat template; their embeddings are new"
            + (frozen if settings.training.adapter is not None else "")
        )
    return settled


def chat_of(settings: Settings, tokenizer: Any | None, day: str) -> ChatTemplate | None:
    """The run's template; None where the model continues text, or the tokenizer is not trained yet."""
    return template_of(tokenizer, day) if settings.dataset.has_conversations and tokenizer is not None else None


def prompt_tokens(chat: ChatTemplate, tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Ids of a conversation up to where the assistant's answer begins.

    Raises:
        TemplateRefusedError: the template refuses it.
    """
    text = chat.render(messages, prompt=True).text
    [encoding] = encode_batch(tokenizer.backend_tokenizer, [text], special=False)
    ids: list[int] = encoding.ids
    return ids


def end_token(tokenizer: Any) -> int | None:
    """The token with which the tokenizer's template ends an answer; None if it writes none."""
    chat, specials = template_of(tokenizer, today()), special_tokens(tokenizer)
    if not chat.text:
        return None
    try:
        written = write(chat, {"messages": list(_PROBE)}, specials)
    except BadRowError:
        return None
    start, end = written.answers[-1]
    last = next((token for token in specials if written.text[start:end].endswith(token)), None)
    return None if last is None else int(tokenizer.convert_tokens_to_ids(last))


def settle_generation(model: Any, tokenizer: Any, sample: SampleSettings) -> None:
    """Let the model's generation settings, which are published, stop at the end of an answer and sample as we do.

    Without a temperature of its own, a pipeline would take 0.7.
    """
    generation = getattr(model, "generation_config", None)
    if generation is None or not getattr(tokenizer, "chat_template", None):
        return
    known = generation.eos_token_id
    known = known if isinstance(known, list) else [known]
    ends = dict.fromkeys(end for end in (end_token(tokenizer), tokenizer.eos_token_id, *known) if end is not None)
    generation.do_sample, generation.top_k, generation.top_p = True, sample.top_k, sample.top_p
    if generation.temperature is None:
        generation.temperature = 1.0
    if ends:
        generation.eos_token_id = list(ends) if len(ends) > 1 else next(iter(ends))
