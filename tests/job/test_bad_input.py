"""What cannot work: told with its field, all of it at once, without a traceback, and nothing half-written.

Every row is a whole ``lmft run``: a manifest on disk, its data beside it, the process's exit code and what it prints.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from job.bad_input import DATA, TABLE, Wrong, lines
from support.forked import TEXTS, toy_spec
from support.local_runs import run_here, write_manifest

from lmft_api.tasks import Task
from lmft_job.models import tokenizers


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer without a mask token."""
    folder = tmp_path_factory.mktemp("causal")
    tokenizers.train(iter([TEXTS]), 300, Task.CAUSAL_LM).save_pretrained(folder)
    return folder


def surroundings(home: Path, causal: Path, files: dict[str, bytes]) -> None:
    """What the rows' addresses name."""
    for name in ("slow", "empty", "odd", "remote", "pickled"):
        (home / name).mkdir()
    (home / "causal").symlink_to(causal)
    (home / "slow" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    remote = {"model_type": "homemade", "auto_map": {"AutoConfig": "code.HomeConfig"}}
    (home / "remote" / "config.json").write_text(json.dumps(remote))
    for path in causal.iterdir():
        (home / "remote" / path.name).write_bytes(path.read_bytes())
        (home / "pickled" / path.name).write_bytes(path.read_bytes())
    config = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 48, "vocab_size": 300}
    (home / "pickled" / "config.json").write_text(json.dumps(config))
    (home / "pickled" / "pytorch_model.bin").write_bytes(b"a pickle")
    (home / "link.jsonl").symlink_to("/proc/self/environ")
    (home / "closed.jsonl").write_bytes(lines(*({"text": text} for text in TEXTS)))
    (home / "continuous.jsonl").write_bytes(lines(*({"text": "words", "label": n / 7} for n in range(60))))
    (home / "same.jsonl").write_bytes(lines(*({"text": "words", "label": "same"} for _ in range(60))))
    for name, body in files.items():
        (home / name).write_bytes(body)


def spec_of(wrong: Wrong, home: Path) -> Any:
    spec = toy_spec(home, wrong.task)
    del spec["output"]
    for name, change in wrong.spec.items():
        if change is None:
            del spec[name]
        elif isinstance(change, dict) and not wrong.alone:
            spec[name] = {**spec.get(name, {}), **change}
        else:
            spec[name] = change
    return json.loads(json.dumps(spec).replace("HOME", str(home)))


@pytest.mark.parametrize("case", TABLE)
def test_what_cannot_work_is_told_with_its_fields_and_leaves_nothing_behind(
    case: str, tmp_path: Path, causal: Path
) -> None:
    wrong = TABLE[case]
    surroundings(tmp_path, causal, wrong.files)

    done = run_here(tmp_path, write_manifest(tmp_path, spec_of(wrong, tmp_path)), wrong.patch)

    assert done.returncode == wrong.code, done.stderr
    lines = [re.sub(r"^line \d+ +", "", line.strip()) for line in done.stderr.splitlines()]
    said = [line for line in lines if line.startswith(("spec.", "metadata."))]
    for told in wrong.told:
        assert any(re.match(told, line) for line in said), f"{told}\nin\n{done.stderr}"
    assert len(said) == len(wrong.told), f"more than was expected:\n{done.stderr}"
    assert "Traceback" not in done.stderr + done.stdout
    left = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    half = [path for path in left if not any((folder / "MANIFEST.json").exists() for folder in path.parents)]
    assert half == [], "what is left is a whole prepared data set or nothing"


def test_the_table_is_as_long_as_promised() -> None:
    assert len(TABLE) >= 40


def test_a_manifest_is_mended_by_running_it_again(tmp_path: Path, causal: Path) -> None:
    wrong = DATA["misspelt text field"]
    surroundings(tmp_path, causal, {})
    assert run_here(tmp_path, write_manifest(tmp_path, spec_of(wrong, tmp_path))).returncode == 2
    right = Wrong({"training": {"epochs": 1}}, ())
    done = run_here(tmp_path, write_manifest(tmp_path, spec_of(right, tmp_path)))
    assert done.returncode == 0, done.stderr
