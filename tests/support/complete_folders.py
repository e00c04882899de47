"""Complete folders of file:// storage: checkpoints, prepared data, what was staged."""

import json
from pathlib import Path


def files_of(folder: Path) -> Path:
    """Where the files of a complete folder lie."""
    return folder / str(json.loads((folder / "MANIFEST.json").read_text())["folder"])
