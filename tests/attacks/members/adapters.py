"""Adapters that somebody else left: their configuration, their weights, and what else lies in their folder.

The effect would be code that runs, a file elsewhere that is read, another adapter than the manifest's that is taken for
it, weights that change although they do not fit, a hang, a flood of words, or an exception other than a refusal.
"""

import json
import os
import pickle
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save, save_file
from support.limits import within_seconds
from support.tiny_bases import save_base

from attacks.members.storage_answers import mutated
from attacks.registry import Attack
from lmft_api.spec import AdapterType
from lmft_api.spec.resolved import AdapterSettings
from lmft_api.tasks import Task
from lmft_job import tasks
from lmft_job.adapters.attach import Base, attach
from lmft_job.adapters.state import CONFIG, FILE, UnfitAdapterError, restore, state_of
from lmft_job.adapters.state import save as save_adapter
from lmft_job.adapters.stored import read_stored
from lmft_job.adapters.targets import find_targets
from lmft_job.errors import InvalidError
from lmft_job.models.sources.files import readable_copy

WHERE = "spec.resumeFrom"
WANTED = AdapterSettings(AdapterType.LORA, 4, 8, 0.0, ("q_proj", "v_proj"), False)
SECONDS = 30
MOST_WORDS = 2_000


class Canary:
    """Makes a file when it is unpickled."""

    path = Path(tempfile.gettempdir()) / f"lmft-canary-{os.getpid()}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@cache
def honest() -> tuple[Any, Path]:
    """A small model with an adapter, and the folder that it left."""
    import transformers

    home = Path(tempfile.mkdtemp(prefix="lmft-adapters-"))
    save_base(home / "base", "llama")
    model = transformers.AutoModelForCausalLM.from_pretrained(home / "base")
    kind = tasks.of(Task.CAUSAL_LM)
    attach(model, find_targets(model, kind, WANTED, ()), WANTED, Base("base"), auto_class=kind.auto_class, seed=0)
    save_adapter(model, home / "adapter")
    if not read_stored(home / "adapter", WHERE).continues(WANTED, list):
        raise AssertionError("what is spoilt here would not have been taken anyway")
    restore(model, home / "adapter")
    return model, home / "adapter"


def attacks() -> Iterator[Attack]:
    """Every setting with every value, changed bytes of both files, weights of every other kind, and files beside."""
    settings = json.loads((honest()[1] / CONFIG).read_text())
    for key in [*settings, "__class__", "trust_remote_code"]:
        for number, value in enumerate(VALUES):
            yield Attack(f"{key} as value {number}", partial(taken, configured(key, value)))
    for name in (CONFIG, FILE):
        for seed in range(60):
            yield Attack(f"{name} changed by {seed}", partial(taken, changed(name, seed)))
    for name, spoil in SPOILT.items():
        yield Attack(name, partial(taken, spoil))


# Configurations

VALUES: list[Any] = [
    None, -1, 513, 10**400, float("nan"), "../../etc/passwd", "x" * 100_000, ["q_proj"] * 10_000, [[None]],
    {"a": {"b": [1]}}, {"base_model_class": "system", "parent_library": "os"}, "PROMPT_TUNING", ".*",
]  # fmt: skip


def configured(key: str, value: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        body = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(body | {key: value}))

    return spoil


def changed(name: str, seed: int) -> Callable[[Path], None]:
    """A few bytes of a file; of the weights those at their beginning, which say what lies where."""

    def spoil(folder: Path) -> None:
        data = (folder / name).read_bytes()
        head = len(data) if name == CONFIG else 8 + int.from_bytes(data[:8], "little")
        (folder / name).write_bytes(mutated(data[:head], random.Random(seed)) + data[head:])

    return spoil


# Weights


def reshaped(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    """The same names with other values."""
    return lambda folder: save_file(
        {name: change(value).contiguous() for name, value in load_file(folder / FILE).items()}, folder / FILE
    )


def renamed(change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda folder: save_file(
        {change(name): value for name, value in load_file(folder / FILE).items()}, folder / FILE
    )


def more(name: str, value: torch.Tensor) -> Callable[[Path], None]:
    return lambda folder: save_file(load_file(folder / FILE) | {name: value}, folder / FILE)


def written(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def header(**entry: Any) -> bytes:
    """A file of weights that consists of a header with one entry."""
    text = json.dumps({"base_model.model.a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **entry}}).encode()
    return len(text).to_bytes(8, "little") + text + b"\0" * 4


def only(*names: str) -> Callable[[Path], None]:
    """Nothing but pickles, under these names."""

    def spoil(folder: Path) -> None:
        (folder / FILE).unlink()
        for name in names:
            (folder / name).write_bytes(pickle.dumps(Canary()))

    return spoil


def beside(*names: str) -> Callable[[Path], None]:
    """Pickles and code beside the honest weights; a configuration that asks for them."""

    def spoil(folder: Path) -> None:
        for name in names:
            (folder / name).write_bytes(
                b"import os; os.mkdir(%r)" % str(Canary.path).encode()
                if name.endswith(".py")
                else pickle.dumps(Canary())
            )
        asks = {"base_model_class": "Evil", "parent_library": "modeling_evil"}
        configured("auto_mapping", asks)(folder)

    return spoil


def linked(name: str, target: str) -> Callable[[Path], None]:
    """A link in place of a file; ``secret`` lies beside the folder, and holds what would do."""

    def spoil(folder: Path) -> None:
        secret = folder.parent / "secret"
        shutil.copy(folder / name, secret)
        (folder / name).unlink()
        (folder / name).symlink_to(secret if target == "secret" else target)

    return spoil


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return spoil


SPOILT: dict[str, Callable[[Path], None]] = {
    "a pickle alone": only("adapter_model.bin"),
    "a pickle that is called safetensors": only(FILE),
    "pickles of every name": only("adapter_model.bin", "adapter_model.pt", "pytorch_model.bin", "training_args.bin"),
    "code and pickles beside": beside("modeling_evil.py", "sitecustomize.py", "adapter_model.bin", "optimizer.pt"),
    "twice as high": reshaped(lambda value: value.repeat(2, 1)),
    "transposed": reshaped(lambda value: value.T),
    "without rows": reshaped(lambda value: value[:0]),
    "flat": reshaped(lambda value: value.flatten()),
    "whole numbers": reshaped(lambda value: value.to(torch.int32)),
    "truth values": reshaped(lambda value: value > 0),
    "complex numbers": reshaped(lambda value: value.to(torch.complex64)),
    "NaN": reshaped(lambda value: torch.full_like(value, float("nan"))),
    "infinity": reshaped(lambda value: torch.full_like(value, float("inf"))),
    "beyond half precision": reshaped(lambda value: torch.full_like(value, 1e38).to(torch.bfloat16) * 10),
    "other names": renamed(lambda name: name.replace("lora_A", "lora_C")),
    "names of the base": renamed(lambda name: name.replace(".lora_A", "")),
    "names with a path": renamed(lambda name: "../../" + name),
    "endless names": renamed(lambda name: name + "x" * 100_000),
    "names with control characters": renamed(lambda name: name + "\x1b[2J\n::error::"),
    "another tensor": more("base_model.model.lm_head.weight", torch.zeros(2, 2)),
    "10,000 more tensors": lambda folder: save_file(
        load_file(folder / FILE) | {f"a{number}": torch.zeros(1) for number in range(10_000)}, folder / FILE
    ),
    "no tensors": lambda folder: (folder / FILE).write_bytes(save({})) and None,
    "a header of 2^62 bytes": written(FILE, (2**62).to_bytes(8, "little") + b"{}"),
    "a header of 90 MB": written(FILE, (90_000_000).to_bytes(8, "little") + b"{" + b" " * 89_999_998 + b"}"),
    "a header of depth": written(FILE, (50_000).to_bytes(8, "little") + b"[" * 50_000),
    "a shape of 2^80": written(FILE, header(shape=[2**40, 2**40])),
    "a shape of 2^80 without bytes": written(FILE, header(shape=[2**40, 2**40, 0], data_offsets=[0, 0])),
    "offsets beyond the file": written(FILE, header(data_offsets=[0, 2**40])),
    "offsets backwards": written(FILE, header(data_offsets=[4, 0])),
    "an unknown type": written(FILE, header(dtype="OBJECT")),
    "nothing": written(FILE, b""),
    "weights by a link": linked(FILE, "secret"),
    "weights by a link to a device": linked(FILE, "/dev/zero"),
    "a configuration by a link": linked(CONFIG, "secret"),
    "a configuration by a link to a process": linked(CONFIG, "/proc/self/environ"),
    "a configuration by a link to itself": linked(CONFIG, CONFIG),
    "weights that are a folder": replaced(FILE, Path.mkdir),
    "a configuration that is a folder": replaced(CONFIG, Path.mkdir),
    "weights that are a fifo": replaced(FILE, os.mkfifo),
    "a configuration that is a fifo": replaced(CONFIG, os.mkfifo),
    "a configuration of depth": written(CONFIG, b'{"a":' * 100_000),
    "a configuration without end": written(CONFIG, b" " * (2 << 20)),
    "a configuration of other text": written(CONFIG, "{}".encode("utf-16")),
    "a list": written(CONFIG, b"[]"),
}


def taken(spoil: Callable[[Path], None]) -> str | None:
    """Continue a run with the spoilt adapter, and read its folder as a model's."""
    model, left = honest()
    with tempfile.TemporaryDirectory() as name, within_seconds(SECONDS):
        folder = Path(name) / "adapter"
        shutil.copytree(left, folder)
        spoil(folder)
        before = {key: value.clone() for key, value in state_of(model).items()}
        effects = [_continued(model, folder, before), _as_model(folder, Path(name) / "copy")]
    if Canary.path.exists():
        Canary.path.rmdir()
        return "its code ran"
    return "; ".join(filter(None, effects)) or None


def _continued(model: Any, folder: Path, before: dict[str, torch.Tensor]) -> str | None:
    try:
        stored = read_stored(folder, WHERE)
        if not stored.continues(WANTED, list):
            return _flood(stored.described())
        restore(model, folder)
    except (InvalidError, UnfitAdapterError) as error:
        same = all(torch.equal(value, before[key]) for key, value in state_of(model).items())
        return _flood(str(error)) if same else "weights were changed"
    after = state_of(model)
    fits = set(after) == set(before) and all(value.shape == before[key].shape for key, value in after.items())
    return None if fits and all(bool(value.isfinite().all()) for value in after.values()) else "weights do not fit"


def _as_model(folder: Path, copy: Path) -> str | None:
    """Beside a model's own files an adapter is left out, whatever it says."""
    for beside_it in ({}, {"model_type": "llama"}):
        if beside_it:
            (folder / "config.json").write_text(json.dumps(beside_it))
        shutil.rmtree(copy, ignore_errors=True)
        try:
            readable_copy(folder, copy, WHERE, lambda words: None, weights=True)
        except InvalidError as error:
            if flood := _flood(str(error)):
                return flood
            continue
        if found := sorted(
            path.name for path in copy.iterdir() if path.name not in ("config.json", "generation_config.json")
        ):
            return f"as a model it has {found}"
    return None


def _flood(words: str) -> str | None:
    return f"{len(words):,} characters are said" if len(words) > MOST_WORDS else None
