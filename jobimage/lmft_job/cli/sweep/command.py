"""``lmft run M --sweep …``: the members one after another, in this process."""

import gc
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.text import Text

from lmft_api.manifest.changes import Change
from lmft_api.manifest.reader import Document
from lmft_api.reasons import ExitCode
from lmft_api.spec import LMFineTuneSpec
from lmft_api.spec.resolved import resolve
from lmft_api.text.shown import json_text, one_line
from lmft_api.wire.layout import BEFORE, BEFORE_UNITS, REPORT, RUN_MARKER
from lmft_api.wire.report import Report
from lmft_api.wire.run_file import spec_hash
from lmft_job.cli.forms import console
from lmft_job.cli.manifest import NAMESPACE, run_of, with_output
from lmft_job.cli.run import LocalOptions, run_spec
from lmft_job.cli.sweep.manifests import planned
from lmft_job.cli.sweep.plan import Member, baseline_key
from lmft_job.cli.sweep.view import as_plain, render
from lmft_job.errors import JobError
from lmft_job.process.imports import leave_nothing_out
from lmft_job.process.signals import Interrupt
from lmft_job.storage import Store, join_key, open_store


@dataclass(frozen=True)
class _Run:
    """A member with its spec and its folder."""

    member: Member
    spec: LMFineTuneSpec
    store: Store

    def report(self) -> Report | None:
        """The report, if it has finished."""
        data = self.store.get_bytes(REPORT)
        return None if data is None else Report.from_json(data)

    def is_another(self) -> bool:
        """Whether the folder belongs to a run of another spec."""
        data = self.store.get_bytes(RUN_MARKER)
        return data is not None and json.loads(data).get("specHash") != spec_hash(self.spec)

    def clear(self) -> None:
        """Remove what is there, the report first: without it the run is not complete."""
        keys = sorted((item.key for item in self.store.list("")), key=lambda key: (key != REPORT, key))
        self.store.delete(keys)


def run_sweep(
    path: Path, axes: Sequence[Sequence[Change]], options: LocalOptions, interrupt: Interrupt, *, as_json: bool = False
) -> int:
    """Run every member that has not finished, then print them beside each other; returns the exit code.

    The same command resumes a sweep that was stopped. A member that fails does not stop the others.
    """
    found = planned(path, axes, options.wishes)
    if found is None:
        return ExitCode.INVALID
    try:
        runs = [_opened(member, document, options.output) for _, member, document in found]
        if options.overwrite:
            for run in runs:
                run.clear()
        if taken := [run for run in runs if run.is_another()]:
            for run in taken:
                print(
                    f"{run.store.url('')} contains a run of another spec; use another --name, or --overwrite",
                    file=sys.stderr,
                )
            return ExitCode.INVALID
        return _run_all(runs, replace(options, overwrite=False, wishes=None), interrupt, as_json)
    except JobError as error:
        print(one_line(str(error)), file=sys.stderr)
        return int(error.exit_code)


def _run_all(runs: list[_Run], options: LocalOptions, interrupt: Interrupt, as_json: bool) -> int:
    failed: dict[str, int] = {}
    leave_nothing_out()
    out = console(stderr=as_json)
    for number, run in enumerate(runs, 1):
        head = f"{number}/{len(runs)}  {run.member.title}"
        if run.report() is not None:
            out.print(f"{head}  finished before", soft_wrap=True)
            continue
        out.print(head, soft_wrap=True, style="bold")
        _share_baseline(run, runs)
        code = run_spec(run.member.name, run.member.name, run.spec, options, interrupt)
        gc.collect()  # a model of the run before must not stay beside the next
        if code == ExitCode.INTERRUPTED:
            print(f"the sweep is stopped: {number - 1} of {len(runs)} runs are done", file=sys.stderr)
            return code
        if code != ExitCode.DONE:
            failed[run.member.name] = code
    done = [(run.member, report) for run in runs if (report := run.report()) is not None]
    if as_json:
        print(json_text(as_plain(done, failed)))
    else:
        for part in render(done, failed):
            out.print(part, soft_wrap=isinstance(part, Text))
    return next(iter(failed.values()), ExitCode.DONE)


def _share_baseline(run: _Run, runs: list[_Run]) -> None:
    """Take the figures before training from a member that measured the same; a member measures it if there is none."""
    if run.store.get_bytes(BEFORE) is not None:
        return
    key = baseline_key(resolve(run.spec).flat())
    for other in runs:
        if other is not run and baseline_key(resolve(other.spec).flat()) == key:
            if (figures := other.store.get_bytes(BEFORE)) is None:
                continue
            units = other.store.get_bytes(BEFORE_UNITS)
            if units is not None:
                run.store.put_if_absent(BEFORE_UNITS, units)
            run.store.put_if_absent(BEFORE, figures)
            return


def _opened(member: Member, document: Document, output: str | None) -> _Run:
    spec = with_output(run_of(document)[1], output)
    uri = spec.output.uri if spec.output else None
    store = open_store(uri or "").child(NAMESPACE).child(join_key("runs", member.name))
    return _Run(member, spec, store)
