"""Where a data set's card on the hub says its files are, and whether they are in its own repository.

The card's ``data_files`` may be patterns, paths and addresses, and ``datasets`` opens any of them: a card could make
the pod request any address, or read its own files as rows.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_INNER = re.compile(r"(zip|tar|gzip|bz2|lz4|xz|zstd)://(?!/)[^:]*")
"""A file within an archive; the archive's name follows it after ``::``."""
_STANDALONE = ".huggingface.yaml"


def places(card: Any) -> Iterator[str]:
    """Everything that the card's configurations name as files or folders of data."""
    configs = card.get("configs") if isinstance(card, dict) else None
    for config in configs if isinstance(configs, list) else []:
        if isinstance(config, dict):
            yield from _texts(config.get("data_files"))
            yield from _texts(config.get("data_dir"))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        # Both forms: {split: path}, and {"split": name, "path": path}
        for key, inner in value.items():
            if not (key == "split" and "path" in value):
                yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def is_own(place: str, repository: str, endpoint: str) -> bool:
    """Whether a place is in the repository: a relative path, or an address of it at the same endpoint.

    Args:
        place: pattern, path or address; several joined by ``::`` for a file within an archive.
        repository: ``owner/name``.
        endpoint: address of the hub.
    """
    *inner, outer = place.split("::")
    return all(_INNER.fullmatch(hop) and _stays(hop.partition("://")[2]) for hop in inner) and (
        _is_own_address(outer, repository, endpoint) if "://" in outer else _stays(outer) and ":" not in outer
    )


def _is_own_address(address: str, repository: str, endpoint: str) -> bool:
    base, _, rest = address.partition("://")
    if base == "hf":
        name, _, path = rest.removeprefix("datasets/").partition(f"{repository}")
        return rest.startswith("datasets/") and not name and path[:1] in ("@", "/") and _stays(path.lstrip("@/"))
    ours, theirs = urlsplit(endpoint), urlsplit(address)
    start = f"{ours.path.rstrip('/')}/datasets/{repository}/resolve/"
    same = (theirs.scheme, theirs.netloc) == (ours.scheme, ours.netloc)
    return same and theirs.path.startswith(start) and _stays(theirs.path.removeprefix(start))


def _stays(path: str) -> bool:
    """Whether a relative path stays below its root, including percent-encoded spellings."""
    spelled = unquote(unquote(path)).replace("\\", "/")
    return not spelled.startswith(("/", "~")) and ".." not in spelled.split("/") and "\0" not in spelled


def read_card(repository: str, revision: str | None, token: str | None) -> dict[str, Any]:
    """The metadata of a data set: from its README, and from a file beside it that takes precedence; empty if none.

    Raises:
        Any exception of the hub's client, except for missing files.
    """
    import yaml
    from huggingface_hub import DatasetCard, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    def fetched(name: str) -> Path | None:
        try:
            return Path(hf_hub_download(repository, name, repo_type="dataset", revision=revision, token=token))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            return None

    card: dict[str, Any] = {}
    if readme := fetched("README.md"):
        card = DatasetCard.load(readme).data.to_dict()
    if standalone := fetched(_STANDALONE):
        more = yaml.safe_load(standalone.read_text(encoding="utf-8"))
        card |= more if isinstance(more, dict) else {}
    return card


def foreign_places(card: dict[str, Any], repository: str, endpoint: str) -> list[str]:
    """Places of data outside of the repository, without duplicates."""
    return [place for place in dict.fromkeys(places(card)) if not is_own(place, repository, endpoint)]
