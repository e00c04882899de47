"""The pages that people read, parsed as far as their commands, files, links and headings go.

What a fenced block is stands after its language, where a reader of the page does not see it:

    sh local            commands that run here, without a cluster; test_local.py runs them
    sh cluster          commands that need a cluster; tests/cluster/node/test_docs.py runs them, in the pages' order
    sh unrun: REASON    commands that no test runs, and why
    console local       a transcript: each command after a $, and what it prints, word for word
    console cluster     the same, where it needs a cluster
    console unrun: …    a transcript of something that no test repeats
    python cluster      statements; tests/cluster/operator/test_client.py runs those of a page as one program
    python unrun: …     the same, where no test runs them
    yaml manifest       must be a valid LMFineTune
    yaml values         values that the chart must take; tests/chart renders them
    yaml mistaken       a manifest whose mistakes are the point
    yaml object         an object of Kubernetes' own; tests/docs/test_pages.py parses it
    text                neither command nor file

The first line of a YAML block may be a comment with a file's name: commands below it find that file.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHART_README = ROOT / "charts/lmfinetune/README.md"
# In the order in which a newcomer reads them.
PAGES = (
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "docs/laptop.md",
    ROOT / "docs/install.md",
    ROOT / "docs/manifest.md",
    ROOT / "docs/data.md",
    ROOT / "docs/your-own-data.md",
    ROOT / "docs/first-gpu-run.md",
    ROOT / "docs/ci.md",
    ROOT / "docs/adapters.md",
    ROOT / "docs/estimate.md",
    ROOT / "docs/figures.md",
    ROOT / "docs/trackers.md",
    ROOT / "docs/model-types.md",
    ROOT / "docs/operations.md",
    ROOT / "docs/python-client.md",
    ROOT / "docs/how-resume-works.md",
    ROOT / "docs/scaling.md",
    ROOT / "docs/security.md",
    ROOT / "docs/reference.md",
    ROOT / "docs/troubleshooting.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    CHART_README,
)
KINDS = frozenset(
    {"sh local", "sh cluster", "sh unrun", "console local", "console cluster", "console unrun"}
    | {"python cluster", "python unrun", "yaml manifest", "yaml values", "yaml mistaken", "yaml object", "text"}
)

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<info>.*)$")
_NAMED = re.compile(r"^# (?P<name>[\w.-]+\.ya?ml)$")
_LINK = re.compile(r"!?\[(?:[^][]|\[[^]]*\])*\]\((?P<target>[^()\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line of its fence, what follows the fence, and its text."""

    page: Path
    line: int
    info: str
    text: str

    @property
    def where(self) -> str:
        """``docs/install.md:17``."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def kind(self) -> str:
        """Language and use, without the reason."""
        return self.info.partition(":")[0].strip()

    @property
    def reason(self) -> str:
        """Why no test runs it."""
        return self.info.partition(":")[2].strip()

    @property
    def file(self) -> str | None:
        """Name of the file that the block shows, if it says so."""
        named = _NAMED.match(self.text.partition("\n")[0])
        return named["name"] if named else None


@cache
def blocks_of(page: Path) -> tuple[Block, ...]:
    """The fenced blocks of a page, in order; their indentation is taken off.

    Raises:
        ValueError: a fence that is never closed.
    """
    found, info, fence, indent, begun, text = [], "", "", 0, 0, list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if fence:
            if line.strip() == fence:
                found.append(Block(page, begun, info, "\n".join(text) + "\n"))
                fence = ""
            else:
                text.append(line[indent:] if not line[:indent].strip() else line)
        elif match := _FENCE.match(line):
            info, fence, indent, begun, text = match["info"].strip(), match["fence"], len(match["indent"]), number, []
    if fence:
        raise ValueError(f"{page}:{begun}: this fence is never closed")
    return tuple(found)


def blocks(*kinds: str, pages: tuple[Path, ...] = PAGES) -> list[Block]:
    """All blocks of some kinds, of all pages."""
    return [block for page in pages for block in blocks_of(page) if block.kind in kinds]


def prose(page: Path) -> str:
    """A page without its fenced blocks; lines keep their numbers."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for block in blocks_of(page):
        height = block.text.count("\n") + 2
        lines[block.line - 1 : block.line - 1 + height] = [""] * height
    return "\n".join(lines)


def write_files(before: Block, folder: Path) -> None:
    """Write the files that the block's page shows above it."""
    for block in blocks_of(before.page):
        if block.line < before.line and block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")


def transcript(block: Block) -> Iterator[tuple[str, str]]:
    """Each command of a transcript and what it printed."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def links(page: Path) -> Iterator[str]:
    """The targets of a page's links and pictures."""
    for match in _LINK.finditer(re.sub(r"`[^`\n]*`", "code", prose(page))):
        yield match["target"]


def anchors(page: Path) -> set[str]:
    """What links can aim at within a page, by GitHub's rule: lower case, spaces to dashes, no punctuation."""
    headings = re.findall(r"^#{1,6} +(.+?) *#*$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
