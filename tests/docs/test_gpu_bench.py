"""bench/gpu.sh on a machine without a GPU: its parts, its marks, its table; what it measures takes a GPU to see.

The parts are played by a stand-in for the interpreter, but for one that is cheap.
"""

import importlib
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench/gpu"
STAND_IN = """#!/usr/bin/env bash
case $1 in
  */machine.py) echo '{"device": "NVIDIA H100 80GB HBM3", "memory_gib": 79.2, "torch": "2.15", "date": "2026-11-28"}' ;;
  */summary.py) exec "$REAL" "$@" ;;
  */memory.py) echo '{"row": "memory/estimate", "case": "gpt2", "value": 0.1, "goal": "<= 0.2", "met": true}'
    sleep 30 ;;
  */faults.py) echo '{"row": "faults/missing", "value": false, "goal": "yes", "met": false}'; exit 7 ;;
  */smoke.py) echo '{"row": "smoke/peak", "value": true, "goal": "yes", "met": true}' ;;
esac
"""


def bench(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "REAL": sys.executable, **variables}
    command = ["bash", str(ROOT / "bench/gpu.sh"), *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def stand_in(folder: Path) -> str:
    path = folder / "python"
    path.write_text(STAND_IN)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "lines.jsonl").read_text().splitlines()]


def state(table: str, what: str) -> str:
    [row] = [line for line in table.splitlines() if line.startswith(f"| {what} |")]
    return row.rstrip(" |").rpartition("| ")[2]


@pytest.fixture(name="goals")
def _goals(monkeypatch: pytest.MonkeyPatch) -> Any:
    """bench/gpu/goals.py, which needs no torch."""
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("goals")


def test_each_part_is_described_has_its_program_and_each_goal_its_part(goals: Any) -> None:
    script = (ROOT / "bench/gpu.sh").read_text()
    parts = re.search(r"^all=\((.*?)\)", script, re.DOTALL | re.MULTILINE)
    assert parts is not None
    known = parts[1].split()
    loops = (BENCH / "loops.py").read_text()
    header = script.partition("set -uo")[0]

    assert {goal.part for goal in goals.GOALS} <= set(known)
    for part in known:
        name = re.sub("-(fast|bare)$", "", part)
        assert (BENCH / f"{part}.py").is_file() or f'"{name}"' in loops, part
        assert name in header, part


def test_what_fails_is_cut_off_or_is_not_reached_is_marked(tmp_path: Path) -> None:
    out = tmp_path / "out"

    done = bench(tmp_path, str(out), "smoke", "memory", "faults", PYTHON=stand_in(tmp_path), LMFT_BENCH_SECONDS="1")

    marks = {line["part"]: line for line in lines_of(out) if "exit" in line}
    assert done.returncode == 1
    assert "not_measured" not in marks["smoke"]
    assert marks["memory"]["not_measured"] == "cut off after 1 s"
    assert marks["faults"]["not_measured"] == "failed: exit 7, see log.txt"
    table = (out / "table.md").read_text()
    assert table in done.stdout
    assert state(table, "the peaks table knows the name that nvidia-smi gives") == "met"
    assert state(table, "estimated memory, relative error, ten shapes") == (
        "1 of 10 met; not measured: cut off after 1 s"
    )
    assert state(table, "no GPU: AcceleratorMissing") == "missed"
    assert state(table, "the quickstart end to end, BF16") == "not measured: the part printed no such line"
    assert state(table, "1.1B LoRA, conversations of varied length") == "not measured: the part was not run"


def test_parts_that_a_total_leaves_no_time_for_say_so(tmp_path: Path) -> None:
    out = tmp_path / "out"

    bench(tmp_path, str(out), "smoke", PYTHON=stand_in(tmp_path), LMFT_BENCH_TOTAL="0")

    assert re.fullmatch(r"not begun: \d+ of 0 seconds were used", lines_of(out)[-1]["not_measured"])


def test_a_part_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    done = bench(tmp_path, str(tmp_path / "out"), "loRA")

    assert done.returncode == 2
    assert "there is no part loRA; there are: smoke equality" in done.stderr


def test_an_interpreter_without_torch_is_named(tmp_path: Path) -> None:
    path = tmp_path / "python"
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)

    done = bench(tmp_path, str(tmp_path / "out"), "smoke", PYTHON=str(path))

    assert done.returncode == 1
    assert f"bench/gpu.sh: {path} lacks what training needs" in done.stderr


def test_lines_kept_earlier_give_the_table() -> None:
    command = [sys.executable, str(BENCH / "summary.py"), str(ROOT / "bench/results/2026-11-27-h100.jsonl")]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "| 124M, 16 x 1,024 | run_clm's defaults | 322,479 | 92,964 | 3.469 | >= 2 | met |" in table
    assert (
        "| 124M, 16 x 1,024 | a bare loop as nanoGPT writes it | 322,479 | 443,009 | 0.728 | >= 0.9 | missed |" in table
    )
    assert state(table, "1.1B, 4 x 2,048: MFU") == "not measured: no device time was left"


@pytest.mark.parametrize(
    ("bound", "met", "missed"), [(">= 2", 2, 1.99), ("<= 1.03", 1.03, 1.031), ("<= 1e-5", 1e-6, 1e-4), ("yes", True, 1)]
)
def test_a_figure_is_held_against_its_goal(goals: Any, bound: str, met: object, missed: object) -> None:
    goal = goals.Goal("row", "part", "shape", "peer", bound)

    assert goal.met(met)
    assert not goal.met(missed)


@pytest.mark.timeout(900)  # torch is imported twice, which takes minutes where the machine is shared
def test_a_tiny_run_says_nothing_of_a_gpu_and_runs_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "out"

    done = bench(tmp_path, "--tiny", str(out), "shortage", PYTHON=sys.executable)

    [figure] = [line for line in lines_of(out) if line.get("row") == "shortage/batch"]
    assert done.returncode == 0, (out / "log.txt").read_text()
    assert figure["met"] is None
    assert figure["not_measured"].startswith("a CPU has no memory")
    assert "Tiny shapes on a CPU" in (out / "table.md").read_text()


def test_a_tiny_figure_meets_no_goal_of_a_gpu_and_may_meet_one_of_a_cpu(goals: Any) -> None:
    found = {row: goals.judged(row, 0.0, tiny=True)["met"] for row in ("checkpoint/s3", "equality/switches")}

    assert found == {"checkpoint/s3": None, "equality/switches": True}
