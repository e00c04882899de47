"""A run that reports to no tracker loads no tracker's library."""

import ast
from pathlib import Path

import lmft_job

LIBRARIES = {"tensorboardX", "tensorboard", "mlflow", "wandb"}


def test_no_module_imports_a_trackers_library_when_it_is_imported() -> None:
    found = []
    for path in Path(lmft_job.__file__).parent.rglob("*.py"):
        for statement in ast.parse(path.read_text()).body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                names = [statement.module or ""] if isinstance(statement, ast.ImportFrom) else []
                names += [name.name for name in statement.names] if isinstance(statement, ast.Import) else []
                found += [f"{path.name}: {name}" for name in names if name.split(".")[0] in LIBRARIES]
    assert found == []
