"""The table of a measurement, from its JSON lines: what is wanted, what was found, what failed, what was not measured.

    python bench/gpu/summary.py FOLDER/lines.jsonl          # or files of bench/results
    python bench/gpu/summary.py --keep FOLDER/lines.jsonl   # copies the lines to bench/results/DATE-CARD.jsonl too

The last line of a figure counts. Ratios of loops are computed again from their rates, so that lines kept before there
were goals can be read. Exits with 0 whatever the table says.
"""

import argparse
from pathlib import Path
from typing import Any

from goals import GOALS, YES, Goal, ratios, read, slug

RESULTS = Path(__file__).parents[1] / "results"


def rows(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each goal: ours, peer, value, and ``state``: met, missed, or why it was not measured."""
    tiny = any(line.get("tiny") for line in lines)
    judged = [line for line in lines if line.get("row")]
    for shape in dict.fromkeys(goal.row.partition("/")[0] for goal in GOALS if goal.loops):
        judged += ratios(lines, shape, tiny=tiny)
    return [{"goal": goal, **_row(goal, [line for line in judged if line["row"] == goal.row], lines)} for goal in GOALS]


def _row(goal: Goal, found: list[dict[str, Any]], lines: list[dict[str, Any]]) -> dict[str, Any]:
    cases = {line.get("case"): line for line in found}  # the last of each case
    measured = [line for line in cases.values() if "value" in line]
    if not measured:
        whys = [line["not_measured"] for line in cases.values() if line.get("not_measured")]
        return {"state": f"not measured: {(whys or [_why(goal.part, lines)])[-1]}"}
    worst = max(measured, key=lambda line: _badness(goal, line["value"]))
    figures = {name: worst.get(name) for name in ("ours", "peer", "value", "case")}
    if worst.get("met") is None:
        state = f"not measured: {worst.get('not_measured', 'no goal was checked')}"
    elif not worst["met"]:
        state = "missed"
    elif len(measured) < goal.cases:
        whys = [line["not_measured"] for line in cases.values() if "value" not in line]
        state = f"{len(measured)} of {goal.cases} met; not measured: {(whys or [_why(goal.part, lines)])[-1]}"
    else:
        state = "met"
    return {**figures, "state": state}


def _badness(goal: Goal, value: Any) -> float:
    if goal.bound == YES:
        return 0.0 if value else 1.0
    return -value if goal.bound.startswith(">=") else value


def _why(part: str, lines: list[dict[str, Any]]) -> str:
    marks = [line for line in lines if line.get("part") == part and "row" not in line and
             ("not_measured" in line or "exit" in line)]  # fmt: skip
    if not marks:
        return "the part was not run"
    return str(marks[-1].get("not_measured") or "the part printed no such line")


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown: the machine, a row for each goal, and the parts with their seconds."""
    machine: dict[str, Any] = next((line for line in lines if "device" in line and "torch" in line), {})
    named = ("date", "device", "torch", "transformers", "peft", "trl")
    text = [", ".join(f"{name} {machine[name]}" for name in named if machine.get(name)), ""]
    if any(line.get("tiny") for line in lines):
        text += ["Tiny shapes on a CPU: the figures say that every part runs, and nothing of speed.", ""]
    text += ["| what | against | ours | peer | value | goal | state |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows(lines):
        goal = row["goal"]
        case = f" ({row['case']})" if row.get("case") and goal.cases > 1 else ""
        figures = [_shown(row.get(name)) for name in ("ours", "peer", "value")]
        text.append("| " + " | ".join([goal.shape, goal.against, *figures[:2], figures[2] + case, goal.bound,
                                       row["state"]]) + " |")  # fmt: skip
    marks = {line["part"]: line for line in lines if "exit" in line and "part" in line and "row" not in line}
    ended = [f"{part} {mark['seconds']} s" + (f" (exit {mark['exit']})" if mark["exit"] else "")
             for part, mark in marks.items() if "seconds" in mark]  # fmt: skip
    if ended:
        text += ["", "Parts: " + ", ".join(ended)]
    return "\n".join(text)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def keep(lines: list[dict[str, Any]], folder: Path = RESULTS) -> Path:
    """Write the lines below bench/results, named after date and card.

    Raises:
        SystemExit: they are of a tiny run, name no card, or the file is there.
    """
    machine = next((line for line in lines if "device" in line and "torch" in line), None)
    if machine is None or any(line.get("tiny") for line in lines):
        raise SystemExit("only lines of a GPU are kept, with the line that names it")
    path = folder / f"{machine['date']}-{slug(machine['device'])}.jsonl"
    if path.exists():
        raise SystemExit(f"{path} is there already: give one of the two another name")
    import json

    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    lines = read(*options.files)
    print(table(lines))
    if options.keep:
        print(f"\nkept: {keep(lines)}")


if __name__ == "__main__":
    main()
