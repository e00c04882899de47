"""What checkpoints cost: transfer against boto3's own defaults, and training with checkpoints against none.

    python bench/checkpoint.py [--mebibytes 512] [--rounds 5] [--every 200] [--epochs 12]
        [--only transfer|training|saving]
    uv run --no-project --with-requirements requirements/dev.txt --with obstore python bench/checkpoint.py

Everything runs against one local S3 server (see tests/support/s3server.py), contenders taking turns in one run, each
first in every other round, in memory (/dev/shm) where there is some, so that the disk does not decide. Transfer: one
file, up and down, by our store, which computes its SHA-256, and by ``upload_file`` and ``download_file`` as boto3
comes, alone and with the SHA-256 that would have to follow. Ratios are of medians, ours over theirs in MiB/s; above 1
is faster. Where obstore is installed, it takes part, with its SHA-256 computed in the one pass that sends or stores the
bytes, as ours is; it comes as wheels of its own and is no dependency. CPU time is that of this process, the server's is
not in it. Training: the quickstart's model with checkpoints to S3 every N steps and without, as whole processes; the
ratio is of the training phase's wall time as the report states it, with its uploads. Saving: a model of 20 million
parameters, whose checkpoints are written while training waits, or beside it; how long training waited for one, and
what the rest took meanwhile.
"""

import argparse
import hashlib
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = [str(ROOT / folder) for folder in ("api", "jobimage", "tests")]
sys.path[:0] = PACKAGES
MEBIBYTE = 1024 * 1024
NEVER = 10_000_000
PART_BYTES, PARTS_AT_ONCE = 8 * MEBIBYTE, 10
"""As ours and boto3's."""


def transfer(server: Any, home: Path, mebibytes: int, rounds: int) -> None:
    """Up and down, ours against boto3's defaults."""
    from support.s3server import BUCKET

    from lmft_job.storage import open_store

    source, copy = home / "source", home / "copy"
    with source.open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(MEBIBYTE))
    store = open_store(f"s3://{BUCKET}", server.secret(home / "secret"))
    client = server.client()

    def theirs_up() -> None:
        client.upload_file(str(source), BUCKET, "theirs")

    def theirs_down() -> None:
        client.download_file(BUCKET, "theirs", str(copy))

    def theirs_up_hashed() -> None:
        theirs_up()
        sha256(source)

    def theirs_down_hashed() -> None:
        theirs_down()
        sha256(copy)

    print(f"{mebibytes} MiB, {rounds} rounds, {os.cpu_count()} cores")
    for way, contenders in (
        (
            "upload",
            {
                "ours": lambda: store.put_file("ours", source),
                "boto3": theirs_up,
                "boto3 + SHA-256": theirs_up_hashed,
                **obstore_up(server, source),
            },
        ),
        (
            "download",
            {
                "ours": lambda: store.get_file("ours", copy),
                "boto3": theirs_down,
                "boto3 + SHA-256": theirs_down_hashed,
                **obstore_down(server, copy, home),
            },
        ),
    ):
        taken = in_turns(contenders, rounds)
        speed = {name: mebibytes / statistics.median(wall for wall, _ in times) for name, times in taken.items()}
        cpu = {name: statistics.median(spent for _, spent in times) for name, times in taken.items()}
        said = ", ".join(f"{name} {speed[name]:.0f} MiB/s ({cpu[name]:.2f} s CPU)" for name in taken)
        ratios = ", ".join(
            f"{speed['ours'] / speed[name]:.2f} to {name} (CPU {cpu[name] / cpu['ours']:.2f})"
            for name in taken
            if name != "ours"
        )
        print(f"{way}: {said}; ratio {ratios}", flush=True)


def obstore_up(server: Any, source: Path) -> dict[str, Callable[[], object]]:
    """Upload by obstore, hashed as it is read; nothing where obstore is not installed."""
    if find_spec("obstore") is None:
        return {}
    import obstore

    store = obstore_of(server)

    def up() -> None:
        digest = hashlib.sha256()

        def parts() -> Iterator[bytes]:
            with source.open("rb") as file:
                while part := file.read(PART_BYTES):
                    digest.update(part)
                    yield part

        obstore.put(store, "obstore", parts(), chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
        assert digest.hexdigest() == known

    known = sha256(source)
    return {"obstore": up}


def obstore_down(server: Any, copy: Path, home: Path) -> dict[str, Callable[[], object]]:
    """Download by obstore, hashed as it is stored."""
    if find_spec("obstore") is None:
        return {}
    import obstore

    store = obstore_of(server)
    known = sha256(home / "source")

    def stream() -> None:
        digest = hashlib.sha256()
        with copy.open("wb") as file:
            for part in obstore.get(store, "obstore").stream(min_chunk_size=MEBIBYTE):
                digest.update(part)
                file.write(part)
        assert digest.hexdigest() == known

    return {"obstore": stream}


def obstore_of(server: Any) -> Any:
    """Its store, with the same keys."""
    from obstore.store import S3Store
    from support.s3server import BUCKET

    given = server.environment()
    return S3Store(
        BUCKET,
        endpoint=given["AWS_ENDPOINT_URL"],
        region=given["AWS_REGION"],
        access_key_id=given["AWS_ACCESS_KEY_ID"],
        secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
        client_options={"allow_http": True},
    )


def sha256(path: Path) -> str:
    """What a peer pays that hashes a file by itself."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def in_turns(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds and CPU seconds of each contender in each round; the order turns about, and a first round warms up."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        order = list(contenders) if number % 2 else list(reversed(contenders))
        for name in order:
            start, spent = time.perf_counter(), time.process_time()
            contenders[name]()
            if number:
                taken[name].append((time.perf_counter() - start, time.process_time() - spent))
    return taken


def training(server: Any, home: Path, every: int, epochs: int, rounds: int) -> None:
    """The training phase with checkpoints every N steps against none."""
    phases: dict[str, list[float]] = {"none": [], "checkpoints": []}
    total = 0

    def run(name: str, every: int) -> None:
        nonlocal total
        number = len(phases[name])
        change = {"training": {"epochs": epochs}, "checkpoint": {"everySteps": every}}
        report = train_once(server, home / f"{name}-{number}", f"{name}-{number}", change)
        phases[name].append(report["timings"]["training"])
        total = report["training"]["steps"]
        print(f"  {name}: {phases[name][-1]:.1f} s for {total} steps", flush=True)

    print(f"training, checkpoint every {every} steps against none, {rounds} rounds")
    in_turns({"none": lambda: run("none", NEVER), "checkpoints": lambda: run("checkpoints", every)}, rounds)
    medians = {name: statistics.median(seconds[1:]) for name, seconds in phases.items()}
    ratio = medians["checkpoints"] / medians["none"]
    print(
        f"training: {medians['checkpoints']:.1f} s with, {medians['none']:.1f} s without; ratio {ratio:.3f}; "
        f"a checkpoint every {every * medians['none'] / total:.1f} s"
    )


MEASURED = """
import sys
from lmft_job.cli.__main__ import main
from lmft_job.training import loop
from lmft_job.training.saving import rule

rule.DEAR = float(sys.argv.pop(1))
saved = loop.TrainingLoop.saved


def measured(run, *args, **options):
    saved(run, *args, **options)
    with open("waited", "a") as file:
        print(run.state.saving_seconds, file=file)


loop.TrainingLoop.saved = measured
main()
"""
"""A run of ``lmft`` that notes how long training has waited, after each checkpoint; takes the rule's limit first."""


def saving(server: Any, home: Path, every: int, steps: int, rounds: int) -> None:
    """How long training waits for a checkpoint, where it is written beside training and where not."""
    config = {"model_type": "gpt2", "n_layer": 6, "n_head": 8, "n_embd": 512, "n_positions": 128}
    change = {
        "model": {"fromConfig": config}, "checkpoint": {"everySteps": every},
        "training": {"epochs": None, "maxSteps": steps, "learningRate": "2e-4"},
    }  # fmt: skip
    found: dict[str, list[tuple[float, float, float]]] = {"waiting": [], "beside": []}

    def run(name: str, limit: str) -> None:
        place, before = home / f"{name}-{len(found[name])}", children_seconds()
        report = train_once(server, place, place.name, change, ["-c", MEASURED, limit])
        cpu = children_seconds() - before
        waited = [0.0, *map(float, (place / "waited").read_text().split())]
        # Neither the first nor the last is written beside training.
        each = [after - before for before, after in itertools.pairwise(waited)][1:-1]
        found[name].append((statistics.median(each), cpu, report["training"]["tokensPerSecond"]))
        print(f"  {name}: {', '.join(f'{seconds:.2f}' for seconds in each)} s, {cpu:.0f} s of CPU", flush=True)

    print(f"saving, a checkpoint every {every} of {steps} steps, {rounds} rounds")
    in_turns({"waiting": lambda: run("waiting", "inf"), "beside": lambda: run("beside", "-inf")}, rounds)
    waiting, beside = ([statistics.median(column) for column in zip(*found[name][1:], strict=True)] for name in found)
    print(
        f"saving: training waits {waiting[0]:.2f} s for a checkpoint that it waits for, and {beside[0]:.2f} s for one "
        f"that is written beside it; CPU time {beside[1] / waiting[1]:.3f} times as much, steps "
        f"{beside[2] / waiting[2]:.3f} times as fast"
    )


def children_seconds() -> float:
    """CPU time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


LMFT = ("-m", "lmft_job.cli")


def train_once(
    server: Any, home: Path, name: str, change: dict[str, Any], program: Sequence[str] = LMFT
) -> dict[str, Any]:
    """One run in a process of its own; its report.

    Args:
        server: S3.
        home: folder of its own.
        name: of the run.
        change: sections of the quickstart's spec, merged into it; None removes a field.
        program: what Python runs.
    """
    import yaml
    from support.s3server import BUCKET

    manifest = yaml.safe_load((ROOT / "jobimage/lmft_job/demo.yaml").read_text())
    manifest["metadata"]["name"] = name
    spec = manifest["spec"]
    for section, fields in change.items():
        merged = {**spec.get(section, {}), **fields}
        spec[section] = {field: value for field, value in merged.items() if value is not None}
    spec["evaluation"] = {"everySteps": NEVER}
    spec["output"] = {"uri": f"s3://{BUCKET}/{home.parent.name}"}
    home.mkdir()
    path = home / "manifest.yaml"
    path.write_text(json.dumps(manifest))  # also YAML, and it quotes every text
    environment = {
        **os.environ, **server.environment(), "PYTHONPATH": os.pathsep.join(PACKAGES), "HF_HUB_OFFLINE": "1"
    }  # fmt: skip
    command = [sys.executable, "-P", *program, "run", str(path)]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the run ended with {done.returncode}: {done.stderr[-2000:]}{done.stdout[-2000:]}")
    key = f"{home.parent.name}/default/runs/{name}/report.json"
    report: dict[str, Any] = json.loads(server.client().get_object(Bucket=BUCKET, Key=key)["Body"].read())
    return report


def main() -> None:
    """All parts, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--every", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--only", choices=["transfer", "training", "saving"])
    given = parser.parse_args()
    from support import s3server

    print(s3server.describe())
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
    with tempfile.TemporaryDirectory(prefix="lmft-bench-", dir=memory) as name:
        home = Path(name)
        (home / "server").mkdir()
        with s3server.running(home / "server") as server:
            if given.only in (None, "transfer"):
                transfer(server, home, given.mebibytes, given.rounds)
            if given.only in (None, "training"):
                training(server, home, given.every, given.epochs, given.rounds)
            if given.only in (None, "saving"):
                saving(server, home, 8, 48, given.rounds)


if __name__ == "__main__":
    main()
