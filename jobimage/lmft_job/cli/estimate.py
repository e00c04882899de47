"""``lmft estimate``: what a run will take, before it takes it."""

import sys
import tempfile
from pathlib import Path

from lmft_api.reasons import ExitCode
from lmft_api.schema.rules import amount
from lmft_api.spec.pod import Resources
from lmft_api.text.shown import json_text, one_line, shown
from lmft_api.wire.run_file import RunFile
from lmft_job.attempt.context import RunContext, quiet_libraries
from lmft_job.cli.manifest import NAMESPACE, Wishes, read_run, with_output
from lmft_job.errors import JobError
from lmft_job.observers.events import Observer
from lmft_job.observers.terminal.spinner import waiting
from lmft_job.process.signals import Interrupt

_LEAST = 1 << 30


def report_estimate(
    path: Path,
    gpu_memory: str | None,
    wishes: Wishes | None = None,
    *,
    allow_remote_code: bool = False,
    as_json: bool = False,
) -> int:
    """Print the estimate of the one LMFineTune of a file; returns the exit code.

    Args:
        path: file with the manifest.
        gpu_memory: memory to judge by, as a quantity, and one GPU where the manifest has none; None for the
            manifest's, or that of the GPU that is here.
        wishes: changes to the manifest.
        allow_remote_code: let the code of a model's repository run.
        as_json: print JSON.
    """
    found = read_run(path, wishes)
    if found is None:
        return ExitCode.INVALID
    name, spec = found
    try:
        memory = None if gpu_memory is None else _memory(gpu_memory)
    except ValueError as error:
        print(f"--gpu-memory: {one_line(str(error))}", file=sys.stderr)
        return ExitCode.INVALID
    if memory is not None and not (spec.resources and spec.resources.gpus_per_node):
        # Who names a GPU's memory asks about a GPU, though the manifest, like most of a laptop, has none.
        resources = (spec.resources or Resources()).model_copy(update={"gpus_per_node": 1})
        spec = spec.model_copy(update={"resources": resources})
    quiet_libraries()
    with tempfile.TemporaryDirectory(prefix="lmft-estimate-") as scratch:
        run = RunFile(name=name, namespace=NAMESPACE, uid="local", allow_remote_code=allow_remote_code,
                      spec=with_output(spec, scratch))  # fmt: skip
        context = RunContext(
            run=run, in_pod=False, folder=Path(scratch), cache=Path(scratch), secrets=None,
            observer=Observer(), hung=_never, restart=lambda: None, interrupt=Interrupt(),
        )  # fmt: skip
        return _print(context, memory, as_json)


def _memory(text: str) -> int:
    """Bytes; raises ValueError with what is wrong."""
    if (found := amount(text)) < _LEAST:
        raise ValueError(f'"{text}" is less than 1Gi, the memory of no GPU; write the unit too, as in 80Gi')
    return int(found)


def _never(message: str) -> None:
    """Nothing watches an estimate."""


def _print(context: RunContext, memory: int | None, as_json: bool) -> int:
    with waiting("loading libraries"):
        from lmft_job.memory.estimating import Device, UnknownShapesError
        from lmft_job.stages.fit.estimate import as_plain, estimate, lines

    device = None if memory is None else Device(memory, "--gpu-memory")
    try:
        with waiting("estimating"):
            outlook = estimate(context, device)
    except JobError as error:
        print(one_line(str(error)), file=sys.stderr)
        return error.exit_code
    except UnknownShapesError as error:
        print(f"this model cannot be estimated: {one_line(str(error))}", file=sys.stderr)
        return ExitCode.INVALID
    if as_json:
        print(json_text(as_plain(context.run.name, outlook)))
    else:
        print(shown("\n".join(lines(context.run.name, outlook))))
    return ExitCode.ACCELERATOR_MEMORY if outlook.refusal else ExitCode.DONE
