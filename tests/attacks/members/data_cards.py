"""Cards of hub data sets that name data elsewhere: other addresses, files of the pod, other repositories.

The effect would be a place that is taken for the repository's own, and so opened.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from attacks.registry import Attack
from lmft_job.data.sources.hub_card import foreign_places

HUB = "https://huggingface.co"
FOREIGN = [
    "http://169.254.169.254/latest/meta-data/", "https://evil.example/x.csv", "file:///etc/passwd", "/etc/passwd",
    "~/.ssh/id_rsa", "../other/x.csv", "data/../../x.csv", "data/%2e%2e/x", "data/%252e%252e/x", "..\\x", "s3://b/x",
    "gs://b/x", "ftp://h/x", "hf://datasets/other/data/x.csv", "hf://datasets/team/reviews2/x", "hf://team/reviews/x",
    "hf://spaces/team/reviews/x", "hf://datasets/team/reviews@main/../../other/x",
    f"{HUB}/datasets/team/other/resolve/main/x", f"{HUB}/datasets/team/reviews/resolve/../../other/x",
    f"http{HUB[5:]}/datasets/team/reviews/resolve/main/x", "https://huggingface.co.evil.example/datasets/team/reviews/x",
    "https://huggingface.co@evil.example/datasets/team/reviews/resolve/main/x", f"{HUB}/api/whoami",
    "https://user@huggingface.co/datasets/team/reviews/resolve/main/x", "HTTP://evil.example/x", "local:/etc/passwd",
    "zip://a::http://evil.example/a.zip", "zip:///etc/passwd::a.zip", "zip://../a::a.zip", "simplecache::http://e/x",
    "filecache::/etc/passwd", "simplecache://x::http://e/x", "http:evil", "data/\0", "memory://x", "github://a:b@/x",
    "dask::x", "reference::x", "blockcache://a::a.zip",
]  # fmt: skip
FORMS: dict[str, Any] = {
    "a text": lambda place: place,
    "a list": lambda place: ["train.csv", place],
    "by split": lambda place: {"train": "train.csv", "test": place},
    "of a split": lambda place: [{"split": "train", "path": ["train.csv", place]}],
}


def attacks() -> Iterator[Attack]:
    """Every place in every form."""
    for place in FOREIGN:
        for form, made in FORMS.items():
            yield Attack(f"{place!r} as {form}", partial(accepted, place, {"data_files": made(place)}))
        yield Attack(f"{place!r} as folder", partial(accepted, place, {"data_dir": place}))


def accepted(place: str, config: dict[str, Any]) -> str | None:
    """The effect: the place is not told."""
    found = foreign_places({"configs": [{"config_name": "default", **config}]}, "team/reviews", HUB)
    return None if found == [place] else f"found {found}"
