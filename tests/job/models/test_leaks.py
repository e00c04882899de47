"""A model's files do not make the job read others, and honest ones load as ever; the attacks are a member of their own.

See tests/attacks/members/model_files.py.
"""

import errno
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import transformers
from attacks.members.model_files import WHERE, place_secrets, settings, victim
from support.forked import attempt, complete, run_folder, toy_spec

from lmft_job.errors import InvalidError, UnavailableError
from lmft_job.models import tokenizers
from lmft_job.models.build import load_config, load_tokenizer
from lmft_job.models.sources import parsing
from lmft_job.process import landlock
from lmft_job.process.confined import ConfinedError, NoAnswerError, run_confined


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return place_secrets(tmp_path_factory.mktemp("pod"))


def test_the_ways_are_real_where_nothing_guards(secrets: dict[str, Path], tmp_path: Path) -> None:
    """Without either guard transformers tells the key: this is what the others are tried against."""
    folder = victim(tmp_path, 0)
    settings(vocab=...)(folder, secrets["key.pem"])
    (folder / "vocab.txt").unlink()
    read = transformers.AutoTokenizer.from_pretrained(folder).get_vocab()
    assert any("canary" in token for token in read)


def test_a_child_reads_its_folder_and_nothing_else(secrets: dict[str, Path], tmp_path: Path) -> None:
    if not landlock.version():
        pytest.skip("this kernel has no Landlock")
    source, results = tmp_path / "source", tmp_path / "results"
    source.mkdir()
    results.mkdir()
    (source / "mine").write_text("mine")
    places = [source / "mine", *secrets.values(), Path("/etc/passwd"), Path("/proc/1/environ"), Path("/dev/shm")]

    def look() -> None:
        def opened(path: Path) -> str:
            try:
                return path.read_text() if path.is_file() else str(list(path.iterdir()))
            except PermissionError:
                return "denied"

        seen = {str(path): opened(path) for path in places}
        for path in (source / "new", tmp_path / "new"):
            try:
                path.write_text("x")
            except PermissionError:
                seen[str(path)] = "denied"
        (results / "seen.json").write_text(json.dumps(seen))

    assert run_confined(look, source, results)

    seen = json.loads((results / "seen.json").read_text())
    assert seen.pop(str(source / "mine")) == "mine"
    assert len(seen) == len(places) + 1
    assert set(seen.values()) == {"denied"}


def test_what_the_child_raises_is_told_and_one_that_dies_or_hangs_is_given_up(tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError("no such vocabulary")

    with pytest.raises(ConfinedError, match="no such vocabulary"):
        run_confined(fail, tmp_path, tmp_path)
    with pytest.raises(NoAnswerError, match="signal 9"):
        run_confined(lambda: os.kill(os.getpid(), signal.SIGKILL), tmp_path, tmp_path)
    with pytest.raises(NoAnswerError, match=r"within 0\.2 seconds"):
        run_confined(lambda: time.sleep(60), tmp_path, tmp_path, patience=0.2)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), ValueError("No space left on device (os error 28)")]
)
def test_a_full_disk_is_told_as_one_and_the_files_are_not_at_fault(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill() -> None:
        raise error

    with pytest.raises(OSError, match="No space left") as told:
        run_confined(fill, tmp_path, tmp_path)
    assert told.value.errno == errno.ENOSPC

    model = victim(tmp_path, 0)
    monkeypatch.setattr(parsing, "run_confined", lambda *_: run_confined(fill, tmp_path, tmp_path))
    for load in (load_tokenizer, partial(load_config, trust_remote_code=False, labels=None)):
        with pytest.raises(UnavailableError, match=r"^this machine's disk \(.*\): no space left\. Free or add space"):
            load(model, WHERE)


def test_a_child_that_takes_too_much_memory_is_given_up_and_the_files_are_at_fault(tmp_path: Path) -> None:
    hoard: list[bytearray] = []
    with pytest.raises(ConfinedError, match=r"^it takes more than 64 MiB of memory$"):
        run_confined(lambda: hoard.append(bytearray(1 << 28)), tmp_path, tmp_path, memory=64 << 20)
    with pytest.raises(ConfinedError, match="signal 6, perhaps for want of 4,096 MiB"):
        run_confined(os.abort, tmp_path, tmp_path)


def test_without_landlock_the_list_alone_guards_and_the_log_says_so(
    secrets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)
    notes: list[str] = []
    load_tokenizer(victim(tmp_path, 0), WHERE, say=notes.append)
    assert "this kernel has no Landlock" in notes[-1]
    folder = victim(tmp_path, 1)
    settings(vocab=...)(folder, secrets["key.pem"])
    with pytest.raises(InvalidError, match="as vocab; a vocabulary must stand in it"):
        load_tokenizer(folder, WHERE)


def _sentencepiece(folder: Path) -> None:
    spm = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    text = folder / "text"
    text.write_text("the river of Ghent is wide and cold\n" * 20)
    spm.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "tokenizer"), vocab_size=40, model_type="bpe", minloglevel=2
    )
    text.unlink()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))


def _tiktoken(folder: Path) -> None:
    pytest.importorskip("tiktoken")
    import base64

    ranks = [bytes([number]) for number in range(256)] + [b"th", b"the", b"ri"]
    lines = [f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(ranks)]
    (folder / "tiktoken.model").write_text("\n".join(lines) + "\n")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))


def _trained(folder: Path) -> None:
    tokenizer = tokenizers.train(iter([["the river of Ghent is wide and cold"] * 4]), 300, "CausalLM")  # type: ignore[arg-type]
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "/etc/passwd"]})
    tokenizer.save_pretrained(folder)


def _inline(folder: Path) -> None:
    """Everything in tokenizer_config.json, the chat template too."""
    _trained(folder)
    given = json.loads((folder / "tokenizer_config.json").read_text())
    given["chat_template"] = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    given["added_tokens_decoder"] = {str(token.pop("id")): token for token in added}
    given |= {"name_or_path": "/home/somebody/model", "tokenizer_file": "/root/.cache/tokenizer.json"}
    (folder / "tokenizer_config.json").write_text(json.dumps(given))


def _gpt2(folder: Path) -> None:
    """Vocabulary and merges as files, no tokenizer.json."""
    _trained(folder)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    (folder / "tokenizer.json").unlink()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))


def _bert(folder: Path) -> None:
    shutil.copytree(victim(folder, 0), folder, dirs_exist_ok=True)


@pytest.mark.parametrize("make", [_trained, _inline, _gpt2, _bert, _sentencepiece, _tiktoken])
def test_honest_tokenizers_load_as_transformers_loads_them(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path)
    plain: Any = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path, WHERE)
    texts = ["the river of Ghent", "<|im_start|>Ghent</s> /etc/passwd", ""]
    assert type(ours) is type(plain)
    assert ours(texts)["input_ids"] == plain(texts)["input_ids"]
    assert tokenizers.identity(ours) == tokenizers.identity(plain)
    assert ours.special_tokens_map == plain.special_tokens_map
    assert ours.chat_template == plain.chat_template
    assert ours.model_max_length == plain.model_max_length
    ours.save_pretrained(tmp_path / "ours")
    again: Any = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert again(texts)["input_ids"] == plain(texts)["input_ids"]


def test_a_run_from_a_poisoned_model_tells_nothing_and_an_honest_part_of_it_trains(
    secrets: dict[str, Path], tmp_path: Path
) -> None:
    """Nothing of the key in result, log, report, card or tokenizer, of a run that is refused and of one that is not."""
    first = tmp_path / "first"
    first.mkdir()
    complete(first, toy_spec(first))
    model = run_folder(first) / "model"

    # Refused: a path as vocabulary
    poisoned = shutil.copytree(model, tmp_path / "poisoned")
    settings(vocab=...)(poisoned, secrets["key.pem"])
    refused = tmp_path / "refused"
    refused.mkdir()
    child = attempt(refused, toy_spec(refused) | {"model": {"name": poisoned.as_uri()}})
    assert child.wait() == 2
    assert child.result["reason"] == "InvalidSpec"
    assert "spec.model.name: its tokenizer_config.json names" in child.result["message"]

    # Left out: where files lay once, and a base elsewhere
    odd = shutil.copytree(model, tmp_path / "odd")
    given = json.loads((odd / "tokenizer_config.json").read_text())
    given |= {"name_or_path": str(secrets["key.pem"]), "init_inputs": [str(secrets["key.pem"])]}
    (odd / "tokenizer_config.json").write_text(json.dumps(given))
    (odd / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(secrets["key.pem"])}))
    done = tmp_path / "done"
    done.mkdir()
    complete(done, toy_spec(done) | {"model": {"name": odd.as_uri()}})

    for home in (refused, done):
        words = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
        assert b"canary" not in words
    report = json.loads((run_folder(done) / "report.json").read_text())
    before = json.loads((run_folder(first) / "report.json").read_text())
    assert report["results"]["baselinePerplexity"] == pytest.approx(before["results"]["perplexity"], rel=1e-6)
