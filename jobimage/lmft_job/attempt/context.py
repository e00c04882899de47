"""Context of an attempt: the manifest, where it runs, and who observes it. The same for a laptop and a pod."""

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lmft_api.spec.resolved import Settings, resolve
from lmft_api.status import CheckpointStatus
from lmft_api.wire.layout import run_id
from lmft_api.wire.run_file import KUBERNETES_GRACE_SECONDS, RunFile
from lmft_job.distributed.group import SOLO, Group
from lmft_job.distributed.world import ALONE, World
from lmft_job.errors import InvalidError
from lmft_job.observers.events import Observer
from lmft_job.process.grace import Grace
from lmft_job.process.imports import Unused, defer_slow_imports, leave_out, without_collections
from lmft_job.process.secrets import Scrubber
from lmft_job.process.signals import Interrupt
from lmft_job.process.watchdog import Watchdog
from lmft_job.storage import ReadingStore, Store, join_key, open_store

PATIENCE_BEFORE_STEPS_SECONDS = 3600.0
"""Least patience of the watchdog before the first step: spec.training.watchdogSeconds is meant for steps, and reading
weights from a slow disk reports no progress."""


@dataclass
class AttemptProgress:
    """Progress of the attempt; read when it ends, however it ends."""

    step: int | None = None
    total: int | None = None
    resumed_from_step: int | None = None
    lost_steps: int | None = None
    checkpoint: CheckpointStatus | None = None
    adjustments: list[str] = field(default_factory=list)
    highest_attempt: int | None = None
    unsent: list[str] = field(default_factory=list)
    """What trackers did not take until the end, and how it is sent later: sentences."""


@dataclass
class RunContext:
    """One attempt.

    Attributes:
        run: the run file.
        in_pod: True in a cluster; False on a laptop.
        folder: scratch space of this attempt; removed with the pod.
        cache: prepared data on this machine.
        secrets: folder with one subfolder each for output, dataset, model, hub; None on a laptop.
        observer: receives the events that people see.
        hung: ends the process; called from the watchdog's thread with the message.
        restart: replaces the process by a new one that resumes the run; called after running out of accelerator memory.
        overwrite: start from scratch even if the run exists.
        pod: UID of this pod; empty on a laptop, and where the operator does not set it.
        pod_folder: scratch space that the processes of this pod share; None where there is one.
        world: which of the run's processes this is; the first alone writes, and is seen by people.
        group: what the processes tell each other, once all have come.
        interrupt: requests to stop.
        scrubber: removes secrets from all output.
        timings: seconds by phase.
        progress: progress of the attempt.
    """

    run: RunFile
    in_pod: bool
    folder: Path
    cache: Path
    secrets: Path | None
    observer: Observer
    hung: Callable[[str], None]
    restart: Callable[[], None]
    overwrite: bool = False
    pod: str = ""
    pod_folder: Path | None = None
    world: World = ALONE
    group: Group = SOLO
    interrupt: Interrupt = field(default_factory=Interrupt)
    scrubber: Scrubber = field(default_factory=lambda: Scrubber(None))
    timings: dict[str, float] = field(default_factory=dict)
    progress: AttemptProgress = field(default_factory=AttemptProgress)
    _store: Store | None = None

    def __post_init__(self) -> None:
        if not self.world.main:
            self.observer = Observer()

    @property
    def settings(self) -> Settings:
        """The spec with every default filled in."""
        return resolve(self.run.spec)

    @property
    def grace(self) -> Grace | None:
        """Grace period of a stop; None where nothing kills the process after it."""
        if not self.in_pod:
            return None
        return Grace(self.run.grace_seconds or KUBERNETES_GRACE_SECONDS)

    def namespace_store(self) -> Store:
        """Storage of the namespace: runs and prepared data sets."""
        store = self._writable_store()
        return store if self.world.main else ReadingStore(store)

    def _writable_store(self) -> Store:
        uri = self.settings.output.uri
        if uri is None:
            raise InvalidError(["spec.output.uri: is not set, and the platform has no default; set s3:// or file://"])
        if self._store is None:
            # Creating an S3 client is slow.
            self._store = open_store(uri, self.secret("output")).child(self.run.namespace)
        return self._store

    def run_store(self) -> Store:
        """Storage of this run."""
        return self.namespace_store().child(self._run_key)

    def shared_run_store(self) -> Store:
        """Storage of this run for the few files that any of its processes may write."""
        return self._writable_store().child(self._run_key)

    @property
    def _run_key(self) -> str:
        name = run_id(self.run.name, self.run.uid) if self.in_pod else self.run.name
        return join_key("runs", name)

    def secret(self, kind: str) -> Path | None:
        """Folder of the mounted Secret of a kind; None if there is none."""
        folder = self.secrets / kind if self.secrets else None
        return folder if folder is not None and folder.is_dir() else None

    def hub_token_file(self) -> Path | None:
        """File with the hub token of the manifest; None leaves the choice to the hub's client."""
        folder, reference = self.secret("hub"), self.run.spec.hub_token_secret_ref
        path = folder / reference.key if folder and reference else None
        return path if path is not None and path.is_file() else None

    def hub_token(self) -> str | None:
        """The hub token of the manifest."""
        path = self.hub_token_file()
        return path.read_text().strip() if path else None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the time of a phase of the recipe, for the report; observers hear of it."""
        began = time.monotonic()
        self.observer.working(name)
        try:
            yield
        finally:
            self.observer.working("")
            self.timings[name] = round(self.timings.get(name, 0.0) + time.monotonic() - began, 3)

    @contextmanager
    def importing(self) -> Iterator[None]:
        """Within it the libraries are imported, as far as this run needs them; a phase."""
        leave_out(self._unused())
        with self.phase("imports"), without_collections():
            yield

    def _unused(self) -> list[Unused]:
        training = self.settings.training
        if training.callbacks or training.trainer_class:
            return []  # the user's code may use anything
        needed = {Unused.ADAPTERS: training.adapter is not None, Unused.DISTRIBUTED: not self.world.alone}
        return [part for part in Unused if not needed[part]]

    @cached_property
    def watchdog(self) -> Watchdog:
        """Watches the attempt, from its first access to storage to its last."""
        return Watchdog(self.settings.training.watchdog_seconds, self.hung, PATIENCE_BEFORE_STEPS_SECONDS)

    def remove_scratch(self) -> None:
        """Remove the scratch folder, once all is stored."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def check(self) -> None:
        """Report progress to the watchdog; for loops over batches and chunks. Raises if a stop was requested."""
        self.watchdog.beat()
        self.interrupt.check()


def quiet_libraries() -> None:
    """Turn off the libraries' progress bars, advice, telemetry, slow imports, and thread pools that a fork would break.

    Call it before they are imported.
    """
    defer_slow_imports()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("DISABLE_KUBEFLOW_INTEGRATION", "TRUE")


def quiet_transformers() -> None:
    """Limit transformers to errors; call it after the import."""
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def limit_threads_to_cpu_quota(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> None:
    """Limit threads to the container's CPU quota: torch counts the node's cores, and the extra threads would queue."""
    if "OMP_NUM_THREADS" in os.environ or not quota_file.is_file():
        return
    quota, _, period = quota_file.read_text().strip().partition(" ")
    if quota == "max":
        return
    import torch

    torch.set_num_threads(max(1, min(torch.get_num_threads(), math.ceil(int(quota) / int(period)))))
