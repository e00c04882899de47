"""Text of models, data and other people that is to command whatever prints it: a terminal, or a CI runner.

The effect would be a command that is still one.
"""

import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

from attacks.registry import Attack
from lmft_api.text.shown import json_text, one_line, shown
from lmft_job.cli.validate import report_problems
from lmft_job.process.secrets import Scrubber

COMMANDS = [
    "::error::stop", "::add-mask::x", "::set-output name=a::b", "  ::stop-commands::x", "\t::group::x", "::::x",
    "##[error]x", "##vso[task.setvariable variable=a]b", "##teamcity[buildStatus status='FAILURE']", "##VSO[x]y",
]  # fmt: skip
TERMINAL = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\x1b]52;c;YQ==\x07",
    "\u202egpj.exe",
    "\u2066x\u2069",
    "\x08\x08",
    "\x00",
]
BEFORE = ["", "words\n", "words\r", "words\r\n", "words\u2028", "words\x85", "words\x0b", "words\x0c", " \t"]


def logged(text: str) -> str:
    """What a pod's log shows."""
    out = io.StringIO()
    Scrubber(None, {}).stream(out).write(text)
    return out.getvalue()


def printed(text: str) -> str:
    """JSON for scripts, which reads as what it was."""
    said = json_text({text: [text, float("nan")]})
    assert json.loads(said) == {text: [text, None]}
    return said


MANIFEST = {"apiVersion": "lmfinetune.dev/v1alpha1", "kind": "LMFineTune", "metadata": {"name": "x"}}
SPEC = {"model": {"name": "gpt2"}, "dataset": {"builtin": "PythonDocs"}}


def validated(where: str, text: str, *, as_json: bool = False) -> str:
    """What ``lmft validate`` says of a manifest with the text in a place."""
    spec, name = dict(SPEC), "m.yaml"
    if where == "an address":
        spec |= {"output": {"uri": text}}
    elif where == "a key":
        spec |= {text: 1}
    else:
        name = text.replace("/", "").replace("\0", "") + ".yaml"
    out = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(out):
        path = Path(folder) / os.fsdecode(os.fsencode(name.encode("utf-8", "replace").decode()))
        path.write_text(json.dumps(MANIFEST | {"spec": spec}))
        report_problems([path, path.with_name(f"{path.name}.none")], as_json=as_json)
    return out.getvalue()


SHOWN: dict[str, Callable[[str], str]] = {
    "in a text": shown, "in a line": one_line, "in a pod's log": logged, "in JSON": printed,
    **{f"as {where} in what validate says": partial(validated, where) for where in ("an address", "a key", "a file")},
    "as an address in validate's JSON": partial(validated, "an address", as_json=True),
}  # fmt: skip


def attacks() -> Iterator[Attack]:
    """Every command after every kind of line end, in every place."""
    for where, show in SHOWN.items():
        for number, before in enumerate(BEFORE):
            for command in (*COMMANDS, *TERMINAL):
                yield Attack(f"{command!r} after {number}, {where}", partial(commanded, show, before + command))


def commanded(show: Callable[[str], str], text: str) -> str | None:
    """The effect: something that a runner or a terminal obeys."""
    said = show(text)
    obeyed = [mark for mark in ("##[", "##vso[", "##teamcity[") if mark in said.lower()]
    obeyed += [line for line in said.splitlines() if line.lstrip().startswith("::")]
    obeyed += [c for c in said if not c.isprintable() and c not in "\n\t"]
    return f"still says {obeyed}" if obeyed else None
