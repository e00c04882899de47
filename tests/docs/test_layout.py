"""The tree explains itself: packages stay small, and each says in one sentence what it holds."""

import ast
from pathlib import Path

from lmft_api.tasks import Task

ROOT = Path(__file__).resolve().parents[2]
SIDES = (ROOT / "api/lmft_api", ROOT / "client/lmft", ROOT / "operator/lmft_operator", ROOT / "jobimage/lmft_job")
MOST_MODULES = 8
MOST_LINES = 400
LARGER = {"cli": 12, "decide": 12, "storage": 12}
OF_TASKS = (ROOT / "api/lmft_api/tasks.py", *(ROOT / "jobimage/lmft_job/tasks").glob("*.py"))
"""The only places that ask which task it is; all others ask what sets it apart."""


def packages() -> list[Path]:
    return sorted(path.parent for side in SIDES for path in side.rglob("__init__.py"))


def modules(package: Path) -> list[Path]:
    return [path for path in package.glob("*.py") if path.name != "__init__.py"]


def test_no_package_holds_more_modules_than_a_reader_can_hold() -> None:
    large = {
        str(package.relative_to(ROOT)): len(modules(package))
        for package in packages()
        if len(modules(package)) > LARGER.get(package.name, MOST_MODULES)
    }

    assert large == {}


def test_every_module_is_in_a_package() -> None:
    homes = {path.parent for side in SIDES for path in side.rglob("*.py")}

    assert homes == set(packages())


def test_every_package_and_module_says_what_it_holds() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for side in SIDES
        for path in side.rglob("*.py")
        if ast.get_docstring(ast.parse(path.read_text())) is None
    ]

    assert silent == []


def test_no_file_is_longer_than_a_reader_can_follow() -> None:
    sides = ("api", "client", "operator", "jobimage", "tests", "bench")
    files = (file for side in sides for file in (ROOT / side).rglob("*.py"))
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in files}

    assert {name for name, lines in lengths.items() if lines > MOST_LINES} == set()


def names_of_tasks(path: Path) -> list[str]:
    """Where a file's code, its docstrings aside, names a task: ``Task.CAUSAL_LM``, or ``CausalLM`` in a text."""
    source = path.read_text()
    if not any(name in source for name in (*Task, *Task.__members__)):
        return []
    tree = ast.parse(source)
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = []
    for node in ast.walk(tree):
        member = isinstance(node, ast.Attribute) and node.attr in Task.__members__
        text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs and node.value
        if member or (text and {word.strip("'\".,;:()") for word in text.split()} & set(Task)):
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def test_a_task_is_asked_for_by_name_among_the_tasks_alone() -> None:
    files = [path for side in SIDES for path in side.rglob("*.py") if path not in OF_TASKS]
    templates = [path for side in SIDES for path in side.rglob("*.j2")]

    assert [place for path in files for place in names_of_tasks(path)] == []
    assert [path.name for path in templates if any(task in path.read_text() for task in Task)] == []
    assert all(names_of_tasks(path) for path in OF_TASKS if path.name not in ("__init__.py", "base.py"))


def test_the_recipe_stays_a_page_of_headings() -> None:
    lines = (ROOT / "jobimage/lmft_job/recipe.py").read_text().splitlines()

    assert len([line for line in lines if line.strip() and not line.strip().startswith("#")]) <= 70
