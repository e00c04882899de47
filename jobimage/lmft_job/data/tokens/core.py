"""Texts to ids by a tokenizer's core in Rust, whose panics are no exceptions that anybody expects."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lmft_api.text.wording import first_line
from lmft_job.errors import InvalidError


def is_panic(error: BaseException) -> bool:
    """Whether it is a panic in Rust: a class of its own in each extension, below BaseException alone."""
    return type(error).__name__ == "PanicException"


@contextmanager
def panics_explained() -> Iterator[None]:
    """Turns a panic of a tokenizer into what people can act on.

    Raises:
        InvalidError: the tokenizer failed on a text, for example because its pattern backtracks without end.
    """
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise InvalidError(
            [f"spec.model: its tokenizer fails on a text ({first_line(error)[:200]}); set spec.model.tokenizer.name"]
        ) from error


def encode_batch(core: Any, texts: Sequence[str], *, special: bool = True, offsets: bool = False) -> list[Any]:
    """The encodings of texts.

    Args:
        core: of the class ``tokenizers.Tokenizer``.
        texts: any.
        special: add the special tokens.
        offsets: where each token stands in its text; takes longer.

    Raises:
        InvalidError: the core panics.
    """
    encode = core.encode_batch if offsets else core.encode_batch_fast
    with panics_explained():
        found: list[Any] = encode(texts, add_special_tokens=special)
    return found
