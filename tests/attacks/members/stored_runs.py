"""A run's folder in storage into which others have written: links, other runs' notes, damaged or foreign checkpoints.

The effect would be something read or changed beside the folder, a damaged checkpoint that is taken or one before it
that is lost, a note that is accepted though it is none, a hang, or an exception other than a run's own end in words.
"""

import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from support.limits import within_seconds

from attacks.members.storage_answers import mutated
from attacks.registry import Attack
from lmft_job.attempt.identity import RUN_MARKER, read_claim
from lmft_job.attempt.journal import begun, known_steps, place
from lmft_job.checkpoints import newest_verified, prune, publish
from lmft_job.errors import JobError, NewerReleaseError
from lmft_job.storage import Store, expand, fetch_folder, open_store

SECRET = b"not for you"
SECONDS = 30
ATTEMPT = "checkpoints/attempt-0001"


def attacks() -> Iterator[Attack]:
    """Every kind of link at every level, by every verb; every changed note; every changed manifest."""
    for kind in LINKS:
        for level in LEVELS:
            for verb in VERBS:
                yield Attack(f"{kind} as {level}, {verb}", partial(linked, kind, level, verb))
    for name, notes in NOTES.items():
        for number, note in enumerate(notes):
            yield Attack(f"{name}, note {number}", partial(noted, name, note))
    for name in MANIFESTS:
        yield Attack(f"a checkpoint with {name}", partial(foreign, name, MANIFESTS[name]))
    for seed in range(200):
        yield Attack(f"a checkpoint's manifest changed by {seed}", partial(foreign, str(seed), partial(changed, seed)))


# Links


def hard(place: Path, elsewhere: Path) -> None:
    place.hardlink_to(elsewhere / "key")


LINKS: dict[str, Callable[[Path, Path], None]] = {
    "a link to a folder": lambda place, elsewhere: place.symlink_to(elsewhere),
    "a link to a file": lambda place, elsewhere: place.symlink_to(elsewhere / "key"),
    "a relative link": lambda place, elsewhere: place.symlink_to(os.path.relpath(elsewhere, place.parent)),
    "a link to a link": lambda place, elsewhere: place.symlink_to(elsewhere / "link"),
    "a link to itself": lambda place, elsewhere: place.symlink_to(place.name),
    "a link upwards": lambda place, elsewhere: place.symlink_to(".."),
    "a link to nothing": lambda place, elsewhere: place.symlink_to(elsewhere / "nothing"),
    "a link to a device": lambda place, elsewhere: place.symlink_to("/dev/zero"),
    "a link to a process": lambda place, elsewhere: place.symlink_to("/proc/self/root/etc"),
    "a hard link": hard,
    "a fifo": lambda place, elsewhere: os.mkfifo(place),
}
LEVELS = ("checkpoints", ATTEMPT, f"{ATTEMPT}/step-00000020", f"{ATTEMPT}/step-00000020/MANIFEST.json", "attempts", "a")
VERBS: dict[str, Callable[[Store, Path, str], object]] = {
    "listed": lambda store, home, key: [item for item in store.list() if item.size == len(SECRET)],
    "read": lambda store, home, key: [key for key in (key, f"{key}/key") if store.get_bytes(key) == SECRET],
    "fetched": lambda store, home, key: store.get_file(f"{key}/key", home / "copy") and None,
    "written": lambda store, home, key: store.put_bytes(f"{key}/key", b"x"),
    "written once": lambda store, home, key: store.put_if_absent(f"{key}/key", b"x") and None,
    "replaced": lambda store, home, key: store.put_bytes(key, b"x"),
    "removed": lambda store, home, key: store.delete([key, f"{key}/key"]),
    "expanded": lambda store, home, key: expand(store, "**/key"),
    "resumed": lambda store, home, key: newest_verified(store, home / "resume", lambda words: None),
    "pruned": lambda store, home, key: prune(store, 1, 9) and None,
    "swept": lambda store, home, key: store.abort_incomplete() and None,
    "as attempts": lambda store, home, key: known_steps(store, begun(store)) and None,
    "as a folder": lambda store, home, key: fetch_folder(store, key, home / "folder") and None,
}


def linked(kind: str, level: str, verb: str) -> str | None:
    """A run's folder with a link in it, used; the secret may be read through a hard link alone, which is a file."""
    with tempfile.TemporaryDirectory() as name, within_seconds(SECONDS):
        home = Path(name)
        elsewhere = home / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "key").write_bytes(SECRET)
        (elsewhere / "MANIFEST.json").write_text('{"format": 2, "files": {}, "labels": {"attempt": 1, "step": 20}}')
        (elsewhere / "link").symlink_to(elsewhere)
        before = contents(elsewhere)
        spot = home / "out" / level
        spot.parent.mkdir(parents=True)
        LINKS[kind](spot, elsewhere)
        try:
            effect = VERBS[verb](open_store((home / "out").as_uri()), home, level)
        except JobError:
            effect = None
        if kind == "a hard link" and verb in ("listed", "read"):
            effect = None
        after = contents(elsewhere)
        copied = [path for path in home.rglob("copy") if path.is_file()]
    return f"{effect or copied}" if effect or copied else ("beside it something changed" if after != before else None)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file() and not path.is_symlink()
    }


# Identities

CLAIM = json.dumps({"name": "toy", "specHash": "a" * 64, "data": "f", "model": None, "software": "s"}).encode()
STRANGE = [
    b"", b"null", b"[]", b"1", b'"x"', b"{}", b'{"name": 1}', b'{"name": "toy"}', b"\xff\xfe", b"{" * 50_000,
    b'{"name": "toy", "specHash": "a", "data": {}}', b'{"name": "toy", "specHash": "a", "data": 1e999}',
    b'{"attempt": 1, "step": 1e999}', b'{"attempt": 1, "step": "NaN"}', b'{"attempt": 1, "step": []}',
    b'{"attempt": 1, "step": ' + b"9" * 5000 + b"}", b'{"attempt": 1, "step": 1, "before": 5}',
    b'{"attempt": 1, "step": 1, "before": {"a": [[]]}}', b"[" * 100_000, b'{"name": NaN, "specHash": Infinity}',
    b'{"name": "toy", "name": "other"}', b" " * 17_000_000,
]  # fmt: skip
NOTES = {
    RUN_MARKER: [*STRANGE, *(mutated(CLAIM, random.Random(seed)) for seed in range(100))],
    "attempts/attempt-0001-abcd.json": [
        *STRANGE,
        *(mutated(b'{"attempt": 1, "step": 20, "before": ["x"]}', random.Random(seed)) for seed in range(100)),
    ],
}


def noted(name: str, note: bytes) -> str | None:
    """Another's note where ours would lie: it is understood as it stands, or refused in words."""
    with tempfile.TemporaryDirectory() as folder, within_seconds(SECONDS):
        store = open_store(Path(folder).as_uri())
        store.put_bytes(name, note)
        try:
            if name == RUN_MARKER:
                found = read_claim(store)
                strange = (
                    [value for value in vars(found).values() if not isinstance(value, str | None)] if found else []
                )
                return f"accepted {strange}" if strange else None
            steps = known_steps(store, begun(store))
            place(store, 1, "abcd", begun(store))
        except JobError as error:
            return f"words of {len(str(error))} characters" if len(str(error)) > 2_000 else None
        return None if all(isinstance(step, int) for step in steps.values()) else f"accepted {steps}"


# Checkpoints


def fields(**more: object) -> Callable[[dict[str, object]], bytes]:
    return lambda manifest: json.dumps({**manifest, **more}).encode()


def files(**names: object) -> Callable[[dict[str, object]], bytes]:
    return lambda manifest: json.dumps({**manifest, "files": names}).encode()


ENTRY = {"size": 3, "sha256": "0" * 64}
MANIFESTS: dict[str, Callable[[dict[str, object]], bytes]] = {
    **{f"the file {name[:30]!r}": files(**{name: ENTRY}) for name in (
        "../../../../elsewhere", "/etc/passwd", "a/../../b", "", ".", "a//b", "nul\0", "x" * 5000, "a/" * 2000 + "b",
        "\ud800", "MANIFEST.json", "C:\\x", "~/x", "a\nb",
    )},
    **{f"the folder {folder!r}": fields(folder=folder) for folder in (
        "..", "../other", "/", "a/b", "", "x" * 65, 5, None,
    )},
    **{f"the format {value!r}": fields(format=value) for value in (0, 3, -1, "2", None, [], 10**30)},
    **{f"the labels {value!r}": fields(labels=value) for value in (
        {}, {"attempt": 1, "step": 20}, {"attempt": "1", "step": "30"}, {"attempt": 1}, [], None, {"step": 30.0},
    )},
    **{f"the size {value!r}": files(a={"size": value, "sha256": "0" * 64}) for value in (-1, 2**70, "3", 1.5, None)},
    **{f"the digest {value!r}": files(a={"size": 3, "sha256": value}) for value in ("", "A" * 64, "0" * 63, 5, None)},
    "no files": files(),
    "nothing": lambda manifest: b"",
    "no JSON": lambda manifest: b"\xff{",
    "JSON of depth": lambda manifest: b'{"files": ' + b"[" * 100_000,
    "17 MiB": lambda manifest: b" " * (17 << 20),
    "10,000 files": files(**{f"f{number}": ENTRY for number in range(10_000)}),
}  # fmt: skip


def changed(seed: int, manifest: dict[str, object]) -> bytes:
    return mutated(json.dumps(manifest).encode(), random.Random(seed))


def foreign(name: str, change: Callable[[dict[str, object]], bytes]) -> str | None:
    """Two checkpoints, the manifest of the newer changed: it is taken as it was written, or the one before it is."""
    with tempfile.TemporaryDirectory() as folder, within_seconds(SECONDS):
        home = Path(folder)
        store = open_store((home / "out").as_uri())
        for step in (20, 30):
            source = home / f"source-{step}"
            source.mkdir()
            (source / "a").write_bytes(b"%d." % step)
            newest = publish(store, source, 1, step)
        path = home / "out" / newest.prefix / "MANIFEST.json"
        path.write_bytes(change(json.loads(path.read_bytes())))
        before = sorted(home.rglob("*"))
        said: list[str] = []
        try:
            taken = newest_verified(store, home / "resume", said.append)
        except NewerReleaseError as error:
            # A checkpoint of a newer release is left for the newer image, and nothing older is taken for the newest.
            return None if path.is_file() and len(str(error)) < 2_000 else f"lost, or {error}"
        left = [path for path in set(home.rglob("*")) - set(before) if not path.is_relative_to(home / "resume")]
        got = contents(home / "resume") if (home / "resume").is_dir() else {}
    if left or max(map(len, said), default=0) > 2_000:
        return f"left {left}, said {[words[:80] for words in said]}"
    if taken is None:
        return "the one before is lost"
    whole = list(got.values()) == [b"%d." % taken.step]
    return None if whole or (name == "no files" and not got) else f"took step {taken.step} of {got}"
