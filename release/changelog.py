"""Turns the fragments of changes/ into a section of CHANGELOG.md.

Usage: changelog.py VERSION DATE       writes the section and removes the fragments
       changelog.py --notes VERSION    prints the section of a version, for the page of its release

A fragment is a file ``changes/WORDS.KIND.md`` with one or more sentences for users; KIND is one of KINDS.
"""

import argparse
import re
import sys
from pathlib import Path

TOP = Path(__file__).parents[1]
KINDS = {"added": "Added", "changed": "Changed", "fixed": "Fixed", "removed": "Removed", "security": "Security"}
_NAME = re.compile(rf"[a-z0-9-]+\.({'|'.join(KINDS)})\.md")
_BEFORE_SECTIONS = re.compile(r"\A.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)


def section(version: str, date: str, fragments: dict[str, str]) -> str:
    """The section of a version.

    Args:
        version: such as 1.2.3.
        date: ISO date of the release.
        fragments: texts by file name.

    Raises:
        ValueError: a name is not that of a fragment, a text is empty, or there is nothing.
    """
    wrong = [name for name, text in fragments.items() if not _NAME.fullmatch(name) or not text.strip()]
    if wrong:
        raise ValueError(f"not WORDS.KIND.md with a text, KIND one of {', '.join(KINDS)}: {', '.join(sorted(wrong))}")
    if not fragments:
        raise ValueError("there are no fragments: a release without a change is none")
    parts = [f"## {version} ({date})"]
    for kind, heading in KINDS.items():
        texts = [" ".join(fragments[name].split()) for name in sorted(fragments) if name.endswith(f".{kind}.md")]
        if texts:
            parts.append("\n".join([f"### {heading}", "", *(f"- {text}" for text in texts)]))
    return "\n\n".join(parts) + "\n"


def with_section(changelog: str, new: str) -> str:
    """The changelog with a section above the others; ValueError if it has that version already."""
    head = _BEFORE_SECTIONS.match(changelog)
    before = head[0] if head else ""
    if new.split("(")[0] in changelog:
        raise ValueError(f"CHANGELOG.md has the section {new.splitlines()[0][3:]} already")
    rest = changelog[len(before) :]
    return f"{before.rstrip()}\n\n{new}" + (f"\n{rest}" if rest else "")


def notes(changelog: str, version: str) -> str:
    """The section of a version, without its heading; ValueError if there is none."""
    found = re.search(rf"^## {re.escape(version)} \(.*?\)\n+(.*?)(?=^## |\Z)", changelog, re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"CHANGELOG.md has no section {version}; run: python release/changelog.py {version} DATE")
    return found[1].strip() + "\n"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", metavar="VERSION")
    parser.add_argument("version", nargs="?")
    parser.add_argument("date", nargs="?")
    arguments = parser.parse_args()
    file, folder = TOP / "CHANGELOG.md", TOP / "release" / "changes"
    changelog = file.read_text(encoding="utf-8")
    try:
        if arguments.notes:
            sys.stdout.write(notes(changelog, arguments.notes))
            return
        if not (arguments.version and arguments.date):
            parser.error("VERSION and DATE, or --notes VERSION")
        found = sorted(folder.glob("*.md"))
        fragments = {path.name: path.read_text(encoding="utf-8") for path in found}
        new = section(arguments.version, arguments.date, fragments)
        file.write_text(with_section(changelog, new), encoding="utf-8")
    except ValueError as error:
        sys.exit(str(error))
    for path in found:
        path.unlink()


if __name__ == "__main__":
    main()
