"""Options that commands share."""

from enum import StrEnum
from typing import Annotated

import typer


class Form(StrEnum):
    """Forms of what is printed."""

    TEXT = "text"
    JSON = "json"


Printed = Annotated[Form, typer.Option("-o", "--format", help="What to print.")]
