"""What mkdocs has to be told about the project's pages, which are written to be read in the repository.

Some stand outside ``docs/``; their links, and those to files that are no page, are turned to where these are, on the
site or in the repository. A fence may say after its language who runs the block (``sh local``): that is for the tests.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/lmfinetune/lmfinetune"
# Pages outside docs/, and their names on the site.
BESIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "report-a-vulnerability.md",
    "charts/lmfinetune/README.md": "chart.md",
}
SOURCES = {name: source for source, name in BESIDE.items()}

_LINK = re.compile(
    r"(?P<before>\]\(|^\[[^]\n]+\]: +)(?P<target>[^()\s:#]+)(?P<anchor>#[^()\s]*)?(?=\)|$)", re.MULTILINE
)
_FENCE = re.compile(r"^(?P<fence> *(?:`{3,}|~{3,}) *[a-z]+)[ :][^`\n]*$", re.MULTILINE)
_FENCED = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2 *$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Bring in the pages that stand outside ``docs/``."""
    for source, name in BESIDE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page, and cut what its fences say to the tests."""
    here = page.file.src_uri
    source = SOURCES.get(here, f"docs/{here}")

    def turned(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["target"]))
        anchor = link["anchor"] or ""
        on_site = BESIDE.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
        if on_site is not None and files.get_file_from_path(on_site):
            return f"{link['before']}{posixpath.relpath(on_site, posixpath.dirname(here) or '.')}{anchor}"
        if not (ROOT / target).exists():
            raise LookupError(f"{source}: there is no {target}")
        kind = "tree" if (ROOT / target).is_dir() else "blob"
        return f"{link['before']}{REPOSITORY}/{kind}/main/{target}{anchor}"

    parts, end = [], 0
    for block in _FENCED.finditer(markdown):
        parts += [_LINK.sub(turned, markdown[end : block.start()]), _FENCE.sub(r"\g<fence>", block[0], count=1)]
        end = block.end()
    return "".join([*parts, _LINK.sub(turned, markdown[end:])])
