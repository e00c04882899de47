"""The version of a release, which is written in one place: ``__version__`` of ``lmft_api``.

Usage: version.py [TAG]. Prints it; a TAG that is not ``v`` and the version is refused.
"""

import re
import sys
from pathlib import Path

_PLACE = Path(__file__).parents[1] / "api" / "lmft_api" / "__init__.py"


def version() -> str:
    """The version, without an import, so that any Python will do."""
    return re.findall(r'^__version__ = "(.+)"$', _PLACE.read_text(encoding="utf-8"), re.MULTILINE)[0]


if __name__ == "__main__":
    if sys.argv[1:] not in ([], [f"v{version()}"]):
        sys.exit(f"the tag {sys.argv[1]} is not v{version()}, of {_PLACE.relative_to(Path.cwd())}")
    print(version())
