"""Forms of what commands print, and the option that chooses."""

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from lmft_job.process.streams import ShownStream

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


class Form(StrEnum):
    """Forms of what is printed."""

    TEXT = "text"
    JSON = "json"


Printed = Annotated[Form, typer.Option("-o", "--format", help="What to print.")]


def console(*, stderr: bool = False, **options: Any) -> "Console":
    """A console for tables and texts, whose words are plain text, and command nothing that prints them."""
    from rich.console import Console

    stream = ShownStream(sys.stderr if stderr else sys.stdout)
    return Console(file=cast("Any", stream), highlight=False, markup=False, emoji=False, **options)


def print_laid_out(what: "RenderableType", **options: Any) -> None:
    """Print a table, or several things, on standard output."""
    console(**options).print(what)
