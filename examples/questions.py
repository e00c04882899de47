"""Writes questions.csv, a spreadsheet of questions and answers about Python's statements, from the language reference.

Usage: python questions.py [FOLDER]
"""

import csv
import re
import sys
from pathlib import Path
from pydoc_data.topics import topics

ASKED = ("What does the reference say about {}?", "Explain {} in Python.")


def rows() -> list[dict[str, str]]:
    """A question for each of the first paragraphs of each topic."""
    found = []
    for name, text in sorted(topics.items()):
        said = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]
        answers = [part for part in said if part.endswith(".") and 40 < len(part) < 300]
        for number, answer in enumerate(answers[: len(ASKED)]):
            found.append({"question": ASKED[number].format(name), "answer": answer})
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    with (folder / "questions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["question", "answer"])
        table.writeheader()
        table.writerows(rows())
