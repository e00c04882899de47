"""Parts of weights in files: what each process reads of them, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lmft_job.sharding.files import FOLDER, Shards, UnfitShardsError, load_weights, needed, require_weights
from lmft_job.sharding.share import WHOLE, Share


class Two(torch.nn.Module):
    """A weight of seven rows, and one of a single row."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = torch.nn.Parameter(torch.zeros(7, 2))
        self.short = torch.nn.Parameter(torch.zeros(1))


WEIGHTS = {"model.wide": torch.arange(14.0).view(7, 2), "model.short": torch.tensor([5.0])}


def stored(folder: Path, parts: int, weights: dict[str, torch.Tensor] = WEIGHTS) -> Path:
    """The parts of weights, as so many processes store them."""
    for part in range(parts):
        share, rows, begins = Share(part, parts), {}, {}
        for name, weight in weights.items():
            first, end = share.rows(len(weight))
            if first < end:
                rows[name], begins[name] = weight[first:end].clone(), [first, *[0] * (weight.dim() - 1)]
        put(folder, f"{part + 1:05}-of-{parts:05}.safetensors", rows, begins)
    return folder


def put(folder: Path, name: str, rows: dict[str, torch.Tensor], begins: dict[str, Any]) -> None:
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    info = {key: {"saved_offsets": offsets} for key, offsets in begins.items()}
    save_file(rows, folder / FOLDER / name, metadata={"DCP_SHARDING_INFO": json.dumps(info)})


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 9])
def test_every_row_is_in_one_part_and_any_share_finds_its_rows(parts: int, tmp_path: Path) -> None:
    folder = stored(tmp_path, parts)
    names = [path.name for path in (folder / FOLDER).iterdir()]
    model = Two()

    load_weights(model, folder)

    assert torch.equal(model.wide, WEIGHTS["model.wide"])
    assert torch.equal(model.short, WEIGHTS["model.short"])
    for readers in (1, 2, 5, 8):
        for part in range(readers):
            # when a process fetches only the files that it needs
            share, alone = Share(part, readers), tmp_path / f"{readers}-{part}"
            (alone / FOLDER).mkdir(parents=True)
            for name in needed(names, [7, 1], share):
                (alone / FOLDER / name).write_bytes((folder / FOLDER / name).read_bytes())
            # then these hold its rows
            first, end = share.rows(7)
            with Shards(alone) as found:
                assert torch.equal(found.rows("model.wide", first, end), WEIGHTS["model.wide"][first:end])


def test_as_many_processes_as_before_read_their_own_file_and_the_first() -> None:
    names = [f"{number:05}-of-00004.safetensors" for number in (1, 2, 3, 4)]

    assert needed(names, [64, 128], Share(2, 4)) == {names[0], names[2]}
    assert needed(names, [64, 128], Share(1, 2)) == {names[0], names[2], names[3]}
    assert needed(names, [64], WHOLE) == set(names)


def lacks_a_part(folder: Path) -> None:
    (folder / FOLDER / "00002-of-00002.safetensors").unlink()


def has_other_rows(folder: Path) -> None:
    stored(folder, 2, {**WEIGHTS, "model.wide": torch.ones(7, 3)})


def has_more_rows(folder: Path) -> None:
    stored(folder, 2, {**WEIGHTS, "model.wide": torch.ones(8, 2)})


def has_no_numbers(folder: Path) -> None:
    stored(folder, 2, {**WEIGHTS, "model.short": torch.tensor([float("nan")])})


def has_integers(folder: Path) -> None:
    stored(folder, 2, {**WEIGHTS, "model.short": torch.tensor([1])})


def is_cut(folder: Path) -> None:
    path = folder / FOLDER / "00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:40])


def begins_nowhere(folder: Path) -> None:
    put(folder, "00002-of-00002.safetensors", {"model.wide": torch.zeros(3, 2)}, {"model.wide": [-4, 0]})


def has_a_strange_header(folder: Path) -> None:
    rows = {"model.wide": torch.zeros(3, 2)}
    save_file(rows, folder / FOLDER / "00002-of-00002.safetensors", metadata={"DCP_SHARDING_INFO": "[" * 10_000})


def has_a_strange_name(folder: Path) -> None:
    put(folder, "more.safetensors", {"model.wide": torch.zeros(1, 2)}, {"model.wide": [0, 0]})


def is_a_link(folder: Path) -> None:
    path = folder / FOLDER / "00002-of-00002.safetensors"
    path.rename(folder / "elsewhere")
    path.symlink_to(folder / "elsewhere")


DAMAGES = {
    lacks_a_part: "lacks rows from 4",
    has_other_rows: r"rows of \(3,\) and not \(2,\)",
    has_more_rows: "more than 7 rows",
    has_no_numbers: "NaN",
    has_integers: "no numbers",
    is_cut: "does not load",
    begins_nowhere: "begins at",
    has_a_strange_header: "does not load",
    has_a_strange_name: "not a part",
    is_a_link: "not a part",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_parts_and_those_of_another_model_are_refused(damage: Any, tmp_path: Path) -> None:
    damage(stored(tmp_path, 2))

    with pytest.raises(UnfitShardsError, match=DAMAGES[damage]):
        require_weights(Two(), tmp_path)
