"""Divided weights and optimizer state in files: a file for each part, in any number of processes' reach.

The files are those of torch.distributed.checkpoint's safetensors format: each holds the rows of one part, and in its
header, as ``DCP_SHARDING_INFO``, at which row of the whole they begin. torch's own ``HuggingFaceStorageReader`` reads
them too. torch's ``dcp.save`` and ``dcp.load`` are not called: they exchange plans between processes as pickles, over
connections without authentication, and its other format stores them.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lmft_api.text.wording import first_line
from lmft_job.sharding.classes import DTensor
from lmft_job.sharding.divide import local, share_held, share_of_model, trained_weights
from lmft_job.sharding.share import Share

FOLDER = "shards"
"""Name of the folder with the parts, in a checkpoint and in the folder of the best weights."""
MODEL = "model."
OPTIMIZER = "optimizer."
_HEADER = "DCP_SHARDING_INFO"
_NAME = re.compile(r"(?P<number>[0-9]{5})-of-(?P<parts>[0-9]{5})\.safetensors")


class UnfitShardsError(Exception):
    """Parts that are missing, damaged, or of another model; the message says which and how."""


def file_name(share: Share) -> str:
    """Name of the file of a part; numbers begin at 1, as those of a model in several files do."""
    return f"{share.part + 1:05}-of-{share.parts:05}.safetensors"


@dataclass(frozen=True)
class Part:
    """What a process stores of divided tensors.

    Attributes:
        rows: its rows, by name; they share the memory of the tensors.
        begins: at which row of the whole they begin, as the file's header says it.
        name: of the file.
    """

    rows: dict[str, torch.Tensor]
    begins: dict[str, Any]
    name: str

    def write(self, rows: Mapping[str, torch.Tensor], folder: Path) -> None:
        """Write the rows, or a copy of them, into :data:`FOLDER` of a folder. Asks no other process."""
        place = folder / FOLDER
        place.mkdir(parents=True, exist_ok=True)
        about = {"format": "pt", "DCP_VERSION": "1.0", _HEADER: json.dumps(self.begins)}
        save_file({key: part.contiguous().cpu() for key, part in rows.items()}, place / self.name, metadata=about)


def part_of(tensors: Mapping[str, torch.Tensor], share: Share) -> Part:
    """This process's rows of divided tensors; the first part holds undivided ones too.

    Args:
        tensors: by name.
        share: of this process; one that writes.
    """
    rows, begins = {}, {}
    for name, value in tensors.items():
        divided = isinstance(value, DTensor)
        part = local(value)
        if part.numel() == 0 or (not divided and share.part > 0):
            continue
        first = share.rows(value.shape[0])[0] if divided else 0
        rows[name] = part
        begins[name] = {"saved_offsets": [first, *[0] * (part.dim() - 1)][: part.dim()]}
    return Part(rows, begins, file_name(share))


def save_weights(model: Any, folder: Path) -> None:
    """Write this process's rows of a divided model's trained weights."""
    weights = {f"{MODEL}{name}": weight for name, weight in trained_weights(model).items()}
    part = part_of(weights, share_of_model(model))
    part.write(part.rows, folder)


def needed(names: Iterable[str], lengths: Iterable[int], share: Share) -> set[str]:
    """Of the files in :data:`FOLDER`, those that a process reads; the first is always among them.

    Args:
        names: of the files that there are.
        lengths: rows of each weight.
        share: of the process.
    """
    found, wanted = [(name, match) for name in names if (match := _NAME.fullmatch(name))], {1}
    parts = max((int(match["parts"]) for _, match in found), default=1)
    for length in set(lengths):
        first, end = share.rows(length)
        if first < end:
            each = math.ceil(length / max(1, parts))
            wanted |= set(range(first // each + 1, (end - 1) // each + 2))
    return {name for name, match in found if int(match["number"]) in wanted}


class Shards:
    """The parts in a folder, of which all that this process needs are there. Use it as a context.

    Args:
        folder: a checkpoint, with :data:`FOLDER`.

    Raises:
        UnfitShardsError: on entering, a file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._place = folder / FOLDER
        self._open = ExitStack()
        self._chunks: dict[str, list[tuple[int, int, Any]]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._ends: dict[str, int] = {}

    def __enter__(self) -> "Shards":
        try:
            for path in sorted(self._place.glob("*.safetensors")):
                self._add(path)
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def _add(self, path: Path) -> None:
        if path.is_symlink() or not _NAME.fullmatch(path.name):
            raise UnfitShardsError(f"{path.name} is not a part of a checkpoint")
        try:
            file = self._open.enter_context(safe_open(path, "pt"))
            begins = json.loads((file.metadata() or {})[_HEADER])
            for name in file.keys():  # noqa: SIM118 - no mapping
                chunk = file.get_slice(name)
                shape, offsets = chunk.get_shape(), begins[name]["saved_offsets"]
                first = int(offsets[0]) if offsets else 0
                if first < 0 or len(offsets) != len(shape) or any(offsets[1:]):
                    raise ValueError(f"{name} begins at {offsets}")
                rows = shape[0] if shape else 1
                self._chunks.setdefault(name, []).append((first, first + rows, (file, name)))
                self._shapes[name] = tuple(shape)
                self._ends[name] = max(self._ends.get(name, 0), first + rows)
        except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise UnfitShardsError(f"{path.name} does not load ({first_line(error)})") from error

    def names(self, prefix: str) -> Iterator[str]:
        """Names of the tensors with a prefix."""
        return (name for name in self._chunks if name.startswith(prefix))

    def rows(self, name: str, first: int, end: int) -> torch.Tensor:
        """Rows of a tensor, put together of the parts that hold them; all of an undivided one without dimensions.

        Raises:
            UnfitShardsError: some are missing.
        """
        chunks = sorted(self._chunks.get(name, ()), key=lambda chunk: chunk[0])
        if not chunks:
            raise UnfitShardsError(f"{name} is missing")
        found, at = [], first
        for begin, stop, (file, key) in chunks:
            if begin <= at < min(stop, end):
                part = file.get_slice(key)
                found.append(part[at - begin : min(stop, end) - begin] if part.get_shape() else file.get_tensor(key))
                at = min(stop, end)
        if at < end:
            raise UnfitShardsError(f"{name} lacks rows from {at} on")
        if not found:
            file, key = chunks[0][2]
            nothing: torch.Tensor = file.get_tensor(key)[:0]
            return nothing
        return found[0] if len(found) == 1 else torch.cat(found)

    def like_rows_of(self, name: str, weight: torch.Tensor) -> bool:
        """Whether a tensor's rows have the shape of a weight's."""
        shape = self._shapes[name]
        return len(shape) == weight.dim() and shape[1:] == tuple(weight.shape[1:])

    def whole(self, name: str) -> torch.Tensor:
        """An undivided tensor."""
        return self.rows(name, 0, self._ends[name])

    def part_of(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """The rows of a weight that this process holds.

        Raises:
            UnfitShardsError: some are missing, or they are rows of another weight.
        """
        if not weight.dim():
            return self.rows(name, 0, 1)
        if name in self._shapes and self._shapes[name][1:] != tuple(weight.shape[1:]):
            raise UnfitShardsError(f"{name} has rows of {self._shapes[name][1:]} and not {tuple(weight.shape[1:])}")
        if self._ends.get(name, 0) > weight.shape[0]:
            raise UnfitShardsError(f"{name} has more than {weight.shape[0]} rows")
        return self.rows(name, *share_held(weight).rows(weight.shape[0]))


def require_weights(model: Any, folder: Path) -> None:
    """Check that the parts in a folder hold this process's rows of a model's trained weights.

    Raises:
        UnfitShardsError: they do not, or hold NaN or infinity.
    """
    with Shards(folder) as stored:
        for name, weight in trained_weights(model).items():
            rows = stored.part_of(f"{MODEL}{name}", weight)
            if not rows.is_floating_point() or not bool(torch.isfinite(rows).all()):
                raise UnfitShardsError(f"{name} holds NaN, infinity, or no numbers")


def load_weights(model: Any, folder: Path) -> None:
    """Give a model, divided or not, its trained weights of the parts in a folder.

    Raises:
        UnfitShardsError: they are not this model's.
    """
    with Shards(folder) as stored, torch.no_grad():
        for name, weight in trained_weights(model).items():
            local(weight).copy_(stored.part_of(f"{MODEL}{name}", weight))


def has_shards(folder: Path) -> bool:
    """Whether the weights in a folder are stored in parts."""
    return (folder / FOLDER).is_dir()
