"""Toy checkpoints for the tests of the protocol and of the uploader."""

import json
import os
import shutil
from pathlib import Path

from support.s3server import BUCKET, S3Server

from lmft_job import checkpoints
from lmft_job.checkpoints import Checkpoint, publish
from lmft_job.storage import MANIFEST, Store
from lmft_job.storage.s3 import S3Settings, S3Store
from lmft_job.storage.store import PURPOSES

MODEL = "model.safetensors"
PART = 5 * 1024 * 1024


def folder(home: Path, step: int) -> Path:
    """A checkpoint as a Trainer leaves it: files, and a folder in it."""
    made = home / f"checkpoint-{step}"
    (made / "extra").mkdir(parents=True)
    (made / "model.safetensors").write_bytes(b"%d " % step * 1000)
    (made / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    (made / "extra" / "rng_state.pth").write_bytes(bytes([step % 256]) * 100)
    return made


def publish_steps(store: Store, home: Path, *steps: int, attempt: int = 1) -> list[Checkpoint]:
    made = []
    for step in steps:
        source = folder(home, step)
        made.append(publish(store, source, attempt, step))
        shutil.rmtree(source)
    return made


def content(where: Path) -> dict[str, bytes]:
    return {path.relative_to(where).as_posix(): path.read_bytes() for path in where.rglob("*") if path.is_file()}


def files_of(store: Store, found: Checkpoint) -> str:
    """Where a checkpoint's files lie."""
    manifest = json.loads(store.get_bytes(f"{found.prefix}/{MANIFEST}") or b"")
    return f"{found.prefix}/{manifest['folder']}"


def made_older(path: Path, seconds: float) -> None:
    """As if a file had been written so many seconds before."""
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def steps(store: Store) -> list[tuple[int, int]]:
    return [(found.attempt, found.step) for found in checkpoints.complete(store)]


def quick_store(endpoint: str, s3: S3Server, home: Path) -> Store:
    settings = S3Settings(part_bytes=PART, connect_seconds=0.5, read_seconds=0.5, attempts=2)
    return S3Store.connect(BUCKET, home.name, PURPOSES["output"], s3.secret(home / "secret", None, endpoint), settings)
