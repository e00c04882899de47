"""Tokenizers and configurations as objects, from untrusted files.

Protected twice. :mod:`lmft_job.models.sources.files` copies what may be loaded; then transformers reads the copy in a
child process that can open nothing else (:mod:`lmft_job.process.confined`), and returns the result as plain files:
``config.json``, and ``tokenizer.json`` with the settings beside it. Only these are loaded here, in the process that
has access to keys and tokens.
"""

import functools
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from lmft_job.errors import UnavailableError
from lmft_job.models.sources.files import CONFIG, TOKENIZER, Say, readable_copy
from lmft_job.process.confined import ConfinedError, NoAnswerError, run_confined

_CLASS = "class.json"


class SlowTokenizerError(Exception):
    """The tokenizer has no fast version; the message is the name of its class."""


def tokenizer_of(folder: Path, where: str, say: Say, *, trust_remote_code: bool = False) -> Any:
    """The fast tokenizer in a folder from any source.

    Args:
        folder: folder of a model or tokenizer.
        where: manifest field to name in errors.
        say: called with notes.
        trust_remote_code: run code from the folder; it can read anything, so nothing is confined.

    Raises:
        InvalidError: a file is not accepted; see :func:`lmft_job.models.sources.files.readable_copy`.
        SlowTokenizerError: it has only a slow one.
        ConfinedError: transformers cannot load it; the message is that of transformers.
        UnavailableError: reading it did not finish in time.
    """
    if trust_remote_code:
        return _fast(AutoTokenizer.from_pretrained(str(folder), trust_remote_code=True))
    with _parsed(folder, where, say, _leave_tokenizer) as found:
        name = str(json.loads((found / _CLASS).read_text())["name"])
        if not (found / TOKENIZER).is_file():
            raise SlowTokenizerError(name)
        with _copied(found, where) as clean:
            kind = getattr(transformers, name, transformers.PreTrainedTokenizerFast)
            if not (isinstance(kind, type) and issubclass(kind, PreTrainedTokenizerBase)):
                raise ConfinedError(f"{name} is not a tokenizer")
            tokenizer: Any = kind.from_pretrained(str(clean), local_files_only=True)
            core = Tokenizer.from_file(str(clean / TOKENIZER))
    if json.loads(core.to_str()) != json.loads(tokenizer.backend_tokenizer.to_str()):
        # Its class builds the core from the vocabulary, by rules of its own; the core of the source takes precedence.
        tokenizer._tokenizer = core
    tokenizer.name_or_path = str(folder)
    return tokenizer


def config_of(folder: Path, where: str, say: Say, *, trust_remote_code: bool = False, **more: Any) -> Any:
    """The configuration in a folder from any source.

    Args:
        folder: folder of a model.
        where: manifest field to name in errors.
        say: called with notes.
        trust_remote_code: as for :func:`tokenizer_of`.
        more: settings that take precedence.

    Raises:
        InvalidError, ConfinedError, UnavailableError: as for :func:`tokenizer_of`.
    """
    if trust_remote_code:
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=True, **more)
    with _parsed(folder, where, say, _leave_config) as found, _copied(found, where) as clean:
        config = AutoConfig.from_pretrained(str(clean), trust_remote_code=False, local_files_only=True, **more)
    config.name_or_path = str(folder)
    return config


def _leave_tokenizer(source: Path, results: Path) -> None:
    """Runs in the child."""
    tokenizer: Any = AutoTokenizer.from_pretrained(str(source), trust_remote_code=False, local_files_only=True)
    (results / _CLASS).write_text(json.dumps({"name": type(tokenizer).__name__}))
    if getattr(tokenizer, "is_fast", False):
        tokenizer.save_pretrained(str(results))


def _leave_config(source: Path, results: Path) -> None:
    """Runs in the child."""
    config = AutoConfig.from_pretrained(str(source), trust_remote_code=False, local_files_only=True)
    config.to_json_file(results / CONFIG)
    body = json.loads((results / CONFIG).read_text())
    # transformers knows the model type, so the repository's own code is not needed.
    body.pop("auto_map", None)
    (results / CONFIG).write_text(json.dumps(body))


@contextmanager
def _parsed(folder: Path, where: str, say: Say, work: Any) -> Iterator[Path]:
    """The folder that a child leaves."""
    with tempfile.TemporaryDirectory(prefix="lmft-parse-") as scratch:
        source = readable_copy(folder, Path(scratch) / "source", where, say)
        results = Path(scratch) / "results"
        results.mkdir()
        try:
            restricted = run_confined(functools.partial(work, source, results), source, results)
        except NoAnswerError as error:
            raise UnavailableError(f"{where}: reading its tokenizer and configuration {error}.") from error
        if not restricted:
            say("this kernel has no Landlock: only the list of allowed settings limits what model files may open")
        yield results


@contextmanager
def _copied(results: Path, where: str) -> Iterator[Path]:
    """The child's results, copied by the same rules as its input."""
    with tempfile.TemporaryDirectory(prefix="lmft-parsed-") as scratch:
        yield readable_copy(results, Path(scratch) / "clean", where, lambda _: None)


@contextmanager
def weights_of(folder: Path, where: str, *, trust_remote_code: bool = False) -> Iterator[Path]:
    """A folder to load weights from: safetensors and their index, without an adapter that leads elsewhere.

    Raises:
        InvalidError: an index that names files elsewhere.
    """
    if trust_remote_code:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="lmft-weights-") as scratch:
        yield readable_copy(folder, Path(scratch) / "weights", where, lambda _: None, weights=True)


def _fast(tokenizer: Any) -> Any:
    if not getattr(tokenizer, "is_fast", False):
        raise SlowTokenizerError(type(tokenizer).__name__)
    return tokenizer
