"""Reports of strangers' runs, as ``lmft compare`` reads them from a bucket and as pages show them.

An effect is an error that is not a refusal, what commands a terminal, a CI runner or a browser, and JSON that is none.
"""

import copy
import io
import json
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from support.limits import within_seconds
from support.report_samples import demo_report

from attacks.members.shown_text import commanded
from attacks.registry import Attack
from lmft_api.wire.layout import REPORT
from lmft_api.wire.report import Report
from lmft_job.cli.compare.command import print_comparison
from lmft_job.report.page import render_page

TEXTS = [
    "\x1b[2J\u202e\x9b", "a\r\n::error::x", "##[x]", "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)", "[bold]x[/bold]", "[/]", "\ud800", "\0", "", "{{ 7 * 7 }}",
]  # fmt: skip
NUMBERS = [
    float("nan"), float("inf"), -1e308, 10**400, -1, 2**63, 1e-320, "5", None, True, [], {}, [1], {"a": 1}, "[/]",
]  # fmt: skip
WHOLE = {
    "deep": b'{"settings": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}", "nothing": b"", "a NUL": b"\0",
    "not UTF-8": b'{"name": "\xff"}', "a list": b"[]", "many digits": b'{"name": ' + b"9" * 100_000 + b"}",
}  # fmt: skip
FORBIDDEN = ("<script>alert", "<img src=x", 'href="javascript:', "\x1b", "\x9b", "\u202e")


def attacks() -> Iterator[Attack]:
    """Other values in every place of a report, and files that are none."""
    report = json.loads(demo_report().to_json())
    texts, numbers = cycle(TEXTS), cycle(NUMBERS)
    for number, (path, value) in enumerate(places(report)):
        other = next(texts if isinstance(value, str) else numbers)
        body = json.dumps(put(report, path, other)).encode()
        yield Attack(f"{number}: {'.'.join(map(str, path))} is {other!r:.40}", partial(read, body))
    for name, body in WHOLE.items():
        yield Attack(name, partial(read, body))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every place below the top of a report, in lists the first two."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for name, entry in inner:
        yield (*path, name), entry
        yield from places(entry, (*path, name))


def put(report: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The report with another value in a place."""
    changed = copy.deepcopy(report)
    place = changed
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return changed


def read(body: bytes) -> str | None:
    """Compare it with an honest one, in both forms, and make its page."""
    with within_seconds(60), tempfile.TemporaryDirectory() as folder:
        for name, content in (("a", body), ("b", demo_report().to_json())):
            (Path(folder) / name).mkdir()
            (Path(folder) / name / REPORT).write_bytes(content)
        for as_json in (False, True):
            out, said = io.StringIO(), io.StringIO()
            with redirect_stdout(out), redirect_stderr(said):
                code = print_comparison([f"{folder}/a", f"{folder}/b"], as_json=as_json)
            if as_json and code == 0:
                json.loads(out.getvalue(), parse_constant=refuse)
            if effect := commanded(str, out.getvalue() + said.getvalue()):
                return effect
        try:
            page = render_page(Report.from_json(body), []).decode()
        except ValidationError:
            return None
    shown = [mark for mark in FORBIDDEN if mark in page]
    return f"the page has {shown}" if shown else None


def refuse(constant: str) -> None:
    """NaN and infinity are no JSON."""
    raise ValueError(f"{constant} is not JSON")
