"""Attempts as forked children of the test process: torch is imported once, and a child can be killed for good.

A child runs the real recipe with the real signal handlers and tells its parent what happens, line by line.
"""

import json
import os
import pkgutil
import random
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lmft_api.manifest.validation import parse_spec
from lmft_api.wire.run_file import RunFile
from lmft_job.attempt.context import RunContext
from lmft_job.attempt.ending import conclude, with_progress
from lmft_job.data import prepared  # noqa: F401 - imported here, once, rather than in every child
from lmft_job.distributed.world import World
from lmft_job.observers.broadcast import Broadcast
from lmft_job.observers.events import Observer
from lmft_job.process.signals import Interrupt
from lmft_job.recipe import run

# The first backward pass of a process starts a thread for each GPU, and with fake tensors even where there is none:
# tests that compile or make fake tensors would leave a process whose children cannot train.
torch.zeros((), requires_grad=True).backward()  # type: ignore[no-untyped-call]

UID = "12345678-aaaa"
TEXTS = [
    f"The {thing} of {place} is {state} in the {season}, and the {other} of {place} is {mood}."
    for thing, other in (("river", "hill"), ("house", "garden"), ("ship", "harbour"))
    for place in ("Ghent", "Turin", "Porto", "Lund")
    for state, mood in (("cold", "quiet"), ("wide", "green"), ("old", "bright"))
    for season in ("spring", "winter")
]


def toy_spec(home: Path, task: str = "CausalLM", **sections: Any) -> dict[str, Any]:
    """A spec that trains in about a second; sections are merged into the defaults."""
    data = home / "texts.jsonl"
    if not data.exists():
        rows = [{"text": text, "label": ("cold", "warm")[index % 2]} for index, text in enumerate(TEXTS)]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    causal = task == "CausalLM"
    config: dict[str, Any] = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 48}
    if not causal:
        config = {
            "model_type": "roberta", "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32,
            "intermediate_size": 64, "max_position_embeddings": 66,
        }  # fmt: skip
    spec: dict[str, Any] = {
        "task": task,
        "model": {"fromConfig": config, "tokenizer": {"trainVocabSize": 300}},
        "dataset": {"files": [data.as_uri()], "format": "json", "blockSize": 16},
        "training": {"epochs": 2, "learningRate": "1e-3", "perDeviceBatchSize": 4},
        "checkpoint": {"everySteps": 5},
        "sample": {"prompts": ["The river" if causal else "The <mask> of Ghent"], "maxNewTokens": 6},
        "output": {"uri": (home / "out").as_uri()},
    }
    if task == "SequenceClassification":
        spec["dataset"].pop("blockSize")
        spec["sample"] = {"prompts": ["The river of Lund"]}
    for name, section in sections.items():
        spec[name] = {**spec.get(name, {}), **section} if isinstance(section, dict) else section
    return spec


def run_folder(home: Path, name: str = "toy") -> Path:
    """Where a run lies."""
    return home / "out" / "team" / "runs" / f"{name}-12345678"


def newest_checkpoint(home: Path, name: str) -> int:
    """The step of a run's newest checkpoint."""
    manifests = run_folder(home, name).glob("checkpoints/*/step-*/MANIFEST.json")
    return max(int(manifest.parent.name.removeprefix("step-")) for manifest in manifests)


class _Teller(Observer):
    """Writes events into a pipe."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def tell(self, *words: Any) -> None:
        os.write(self.pipe, (" ".join(map(str, words)) + "\n").encode())

    def headline(self, headline: Any) -> None:
        self.tell("headline", headline.model)

    def phase(self, phase: Any) -> None:
        self.tell("phase", phase)

    def baseline(self, figures: Any) -> None:
        self.tell("baseline", figures.eval_loss)

    def step(self, done: Any) -> None:
        self.tell("step", done.step, done.total)

    def evaluation(self, evaluation: Any) -> None:
        self.tell("evaluation", evaluation.step)

    def checkpoint(self, step: int) -> None:
        self.tell("checkpoint", step)

    def note(self, text: str) -> None:
        self.tell("note", text)

    def resumed(self, point: Any, saved_by: int) -> None:
        from lmft_job.observers.events import resume_note

        self.tell("note", resume_note(point, saved_by))

    def done(self, report: Any) -> None:
        self.tell("done")


@dataclass
class Child:
    """An attempt in a process of its own."""

    pid: int
    pipe: int
    log: Path
    lines: list[str] = field(default_factory=list)
    _rest: bytes = b""

    def events(self) -> Iterator[str]:
        """Its lines as they come, to the end."""
        while chunk := os.read(self.pipe, 65536):
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            for line in whole:
                self.lines.append(line.decode())
                yield self.lines[-1]

    def until(self, start: str) -> str:
        """Read on to the first line that starts so."""
        for line in self.events():
            if line.startswith(start):
                return line
        raise AssertionError(f"no line {start!r}; the log says:\n{self.log.read_text()[-2000:]}")

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Read to the end; the exit code, or minus the signal."""
        for _ in self.events():
            pass
        os.close(self.pipe)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    @property
    def result(self) -> dict[str, Any]:
        """The result, once it has ended."""
        last = next(line for line in reversed(self.lines) if line.startswith("result "))
        return dict(json.loads(last.removeprefix("result ")))

    def said(self, text: str) -> bool:
        """Whether a line holds the text."""
        return any(text in line for line in self.lines)


def attempt(
    home: Path,
    spec: dict[str, Any],
    number: int = 1,
    *,
    name: str = "toy",
    patch: Any = None,
    variables: dict[str, str] | None = None,
    **run_file: Any,
) -> Child:
    """Start an attempt; ``patch`` is called in the child with its teller, before anything runs.

    With torchrun's ``variables`` the child is one rank of it.
    """
    read, write = os.pipe()
    rank = f"-rank-{variables['RANK']}" if variables else ""
    log = home / f"{name}-{number}{rank}.log"
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(write)
        return Child(pid, read, log)
    code = 99
    try:
        os.close(read)
        out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        # pytest's own streams stay with the parent.
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        os.environ |= variables or {}
        folder = home / f"work-{name}-{number}{rank}"
        code = _child(home, spec, number, name, folder, patch, run_file, _Teller(write))
    except BaseException:  # noqa: BLE001 - the process ends below, and would not say why
        traceback.print_exc()
    finally:
        os._exit(code)


def _child(
    home: Path,
    spec: dict[str, Any],
    number: int,
    name: str,
    folder: Path,
    patch: Any,
    run_file: dict[str, Any],
    teller: _Teller,
) -> int:
    interrupt = Interrupt()
    interrupt.install()
    if patch is not None:
        patch(teller)
    folder.mkdir(exist_ok=True)

    def hung(message: str) -> None:
        teller.tell("hung", message)
        os._exit(7)

    contexts: list[RunContext] = []

    def start() -> int:
        def recipe() -> Any:
            file = RunFile(name=name, namespace="team", uid=UID, attempt=number, spec=parse_spec(spec), **run_file)
            observer = Broadcast([teller])
            world = World.from_environment(os.environ)
            context = RunContext(
                file, True, folder, home / "cache", home / "secrets", observer, hung, restart, world=world
            )
            context.interrupt = interrupt
            if world.local_size > 1:
                context.pod_folder = home / f"shared-{name}-{number}-{world.node}"
            contexts.append(context)
            return run(context)

        ending = conclude(recipe, interrupt)
        teller.tell("result", json.dumps(with_progress(ending, contexts[-1]).to_json()))
        return ending.exit_code

    def restart() -> None:
        # Stands for replacing the process: the next try starts from what is in storage.
        teller.tell("restart")
        os._exit(start())

    return start()


def complete(home: Path, spec: dict[str, Any], number: int = 1, **options: Any) -> Child:
    """Run an attempt to its end; it must be done."""
    child = attempt(home, spec, number, **options)
    code = child.wait()
    assert code == 0, child.log.read_text()[-3000:] + "\n".join(child.lines[-5:])
    return child


def outcome(home: Path, name: str = "toy") -> dict[str, Any]:
    """What must be equal, to the bit, whatever happened on the way."""
    folder = run_folder(home, name)
    report = json.loads((folder / "report.json").read_text())
    [last] = (folder / "checkpoints").glob("*/*/*/lmft_losses.f64")
    return {
        "weights": (folder / "model" / "model.safetensors").read_bytes(),
        "losses": last.read_bytes(),
        "results": {key: value for key, value in report["results"].items() if not key.endswith("URI")},
        "evaluations": report["evaluations"],
        "tokens": report["training"]["tokens"],
        "metrics": [
            {key: value for key, value in json.loads(line).items() if key != "tokensPerSecond"}
            for line in (folder / "metrics.jsonl").read_text().splitlines()
        ],
    }


def killed_at_random_steps(home: Path, spec: dict[str, Any], attempts: int, patch: Any = None) -> None:
    """The first attempts of a run, each killed after a few of its steps; ``patch`` is called in each."""
    chance = random.Random(3)

    def slowly(teller: _Teller) -> None:
        slow_uploads(0.003)(teller)
        if patch is not None:
            patch(teller)

    for number in range(1, attempts + 1):
        child = attempt(home, spec, number, patch=slowly)
        patience = chance.randint(4, 9)
        for line in child.events():
            patience -= line.startswith("step")
            if not patience:
                child.signal(KILL)
                break
        assert child.wait() == -KILL, "it ended before its moment came"


def slow_uploads(seconds: float) -> Any:
    """A patch: every file of a checkpoint takes this long to store, and is announced."""

    def patch(teller: _Teller) -> None:
        from lmft_job.storage.local import FileStore

        original = FileStore.put_file

        def put_file(self: Any, key: str, path: Path, check: Any = None) -> str:
            teller.tell("put", key)
            time.sleep(seconds)
            return original(self, key, path, check)

        FileStore.put_file = put_file  # type: ignore[method-assign]

    return patch


def hold_until(place: str, gate: Path) -> Any:
    """A patch: a function tells that it is held, and goes on once there is a file."""

    def patch(teller: _Teller) -> None:
        owner_name, _, name = place.rpartition(".")
        owner = pkgutil.resolve_name(owner_name)
        original = getattr(owner, name)

        def held(*args: Any, **options: Any) -> Any:
            teller.tell("held", place)
            while not gate.exists():
                time.sleep(0.01)
            return original(*args, **options)

        setattr(owner, name, held)

    return patch


KILL = signal.SIGKILL
TERM = signal.SIGTERM
