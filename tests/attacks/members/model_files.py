"""Models and tokenizers whose files lead to a secret of the pod: with the list of settings, and by the kernel alone.

The effect would be a piece of the secret in what loading says, notes or saves.
"""

import contextlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from attacks.registry import Attack
from lmft_job.errors import JobError
from lmft_job.models.build import load_config, load_tokenizer
from lmft_job.models.sources import parsing
from lmft_job.process import landlock

WHERE = "spec.model.name"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIcanaryEvQIBADANBgkqhkiG9w0\ncanaryHRcOQ==\n-----END PRIVATE KEY-----\n"
SECRETS = {
    "key.pem": PEM,
    "id_token": "eyJhbGciOiJSUzI1NiJ9.eyJjanaryI6ImNhbmFyeSJ9.canarySignature",
    "serviceaccount/token": "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJjYW5hcnkifQ.canaryToken",
    ".env": "AWS_SECRET_ACCESS_KEY=canaryWJalrXUtnFEMI\nOTHER=canary\n",
    "environ": "/proc/self/environ",
}
KINDS = {"tokenizer_class": "BertTokenizer", "model_max_length": 64}


def _tokenizer_json(**model: Any) -> dict[str, Any]:
    kind = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    return {"version": "1.0", "added_tokens": [], "model": {**kind, "max_input_chars_per_word": 100, **model}}


def settings(**more: Any) -> Callable[[Path, Path], None]:
    """A way by a key of tokenizer_config.json; ``...`` stands for the secret's path."""

    def write(folder: Path, secret: Path) -> None:
        given = {key: str(secret) if value is ... else value for key, value in {**KINDS, **more}.items()}
        (folder / "tokenizer_config.json").write_text(json.dumps(given))

    return write


def inputs(folder: Path, secret: Path) -> None:
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({**KINDS, "init_inputs": [str(secret)]}))


def special(folder: Path, secret: Path) -> None:
    (folder / "special_tokens_map.json").write_text(json.dumps({"vocab": str(secret)}))


def special_file(folder: Path, secret: Path) -> None:
    (folder / "special_tokens_map.json").write_text(json.dumps({"vocab_file": str(secret)}))


def core(folder: Path, secret: Path) -> None:
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer_json(vocab=str(secret))))


def relative(folder: Path, secret: Path) -> None:
    settings(vocab=os.path.relpath(secret, Path.cwd()))(folder, secret)


def link(name: str) -> Callable[[Path, Path], None]:
    def place(folder: Path, secret: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(secret)

    return place


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "vocab": settings(vocab=...),
    "vocab_file": settings(vocab_file=...),
    "vocab, relative": relative,
    "init_inputs": inputs,
    "special_tokens_map vocab": special,
    "special_tokens_map vocab_file": special_file,
    "tokenizer.json vocab": core,
    "link vocab.txt": link("vocab.txt"),
    "link chat_template.jinja": link("chat_template.jinja"),
    "link tokenizer_config.json": link("tokenizer_config.json"),
    "link tokenizer.model": link("tokenizer.model"),
    "link added_tokens.json": link("added_tokens.json"),
    "link config.json": link("config.json"),
    "gguf_file": settings(gguf_file=...),
    "tokenizer_file": settings(tokenizer_file=...),
    "GPT-2 vocab": settings(tokenizer_class="GPT2Tokenizer", vocab=..., merges=...),
    "legacy BERT": settings(tokenizer_class="BertTokenizerLegacy", vocab_file=...),
    "entity_vocab": settings(tokenizer_class="LukeTokenizer", entity_vocab=...),
    "rewriting rules": settings(tokenizer_class="MyT5Tokenizer", vocab_file=...),
}


def place_secrets(home: Path) -> dict[str, Path]:
    """Files that no run may say anything of; one of them is the environment of this process."""
    found = {}
    for name, body in SECRETS.items():
        path = home / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(body)
        found[name] = Path(body) if body.startswith("/") else path
    return found


def victim(tmp_path: Path, number: int) -> Path:
    """A BERT tokenizer of one vocabulary file."""
    folder = tmp_path / f"model-{number}"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "_name_or_path": "/home/x"}))
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "river"]))
    settings()(folder, folder)
    return folder


def marks(secret: Path) -> list[str]:
    """Pieces of a secret that give it away, as a tokenizer might spell them."""
    lines = [part.strip() for line in secret.read_text(errors="replace").splitlines() for part in line.split("\0")]
    told = [line[:24] for line in lines if "canary" in line or (secret.name == "environ" and len(line) > 12)]
    return [spelling for mark in told for spelling in (mark, mark.lower())]


def said_of(folder: Path, saved: Path) -> str:
    """All that loading, saving and failing says."""
    words: list[str] = []
    try:
        load_tokenizer(folder, WHERE, say=words.append).save_pretrained(saved)
        if (folder / "config.json").is_symlink():
            load_config(folder, WHERE, trust_remote_code=False, labels=None, say=words.append).save_pretrained(saved)
    except JobError as error:
        words.append(str(error))
    words += [path.read_text() for path in saved.rglob("*") if path.is_file()]
    return "\n".join(words)


def attacks() -> Iterator[Attack]:
    """Every way to every secret."""
    guards = ["list and kernel", "kernel alone"] if landlock.version() else ["list and kernel"]
    for guard, name, way in itertools.product(guards, SECRETS, WAYS):
        yield Attack(f"{way} to {name}, {guard}", partial(loaded, guard, name, way))


def loaded(guard: str, name: str, way: str) -> str | None:
    """Load the poisoned folder; the effect is a piece of the secret in whatever comes of it."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        home = Path(scratch)
        (home / "pod").mkdir()
        secret = place_secrets(home / "pod")[name]
        folder = victim(home, 0)
        WAYS[way](folder, secret)
        if guard == "kernel alone":
            copy = lambda folder, copy, *_, **__: shutil.copytree(folder, copy, symlinks=True)  # noqa: E731
            stack.enter_context(mock.patch.object(parsing, "readable_copy", copy))
        said = said_of(folder, home / "saved")
        told = [mark for mark in marks(secret) if mark in said]
    return f"it says {told[0]!r}" if told else None
