"""A hook for MkDocs: the pages link into the repository, and those links work on the site too.

A page in docs/ may link to a file beside docs/, as `../examples/ci/README.md`, and a page outside to one inside. In the
repository these links work as they stand. For the site the files that are linked to are added to it, and the links are
written anew: docs/ is the site's root, and everything else keeps its path.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "README.md")  # outside docs/ and in the navigation
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages outside docs/, then everything that a page links to, and what these link to."""
    waiting = [*PAGES, *(_in_repository(file.src_uri) for file in files.documentation_pages())]
    seen: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in seen or not (ROOT / path).is_file():
            continue
        seen.add(path)
        uri = _on_site(path)
        if files.get_file_from_path(uri) is None:
            level = InclusionLevel.UNDEFINED if path in PAGES else InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / path), inclusion=level))
        if path.endswith(".md"):
            waiting += targets(ROOT.joinpath(path).read_text("utf-8"), path)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as the site needs them."""
    return rewritten(markdown, _in_repository(page.file.src_uri))


def targets(markdown: str, path: str) -> list[str]:
    """What a page links to, as paths in the repository; a folder stands for its README."""
    return [_resolved(link, path) for link in LINK.findall(CODE.sub("", markdown))]


def rewritten(markdown: str, path: str) -> str:
    """The text of the page at `path` in the repository, with links that work when docs/ is the root."""
    here = posixpath.dirname(_on_site(path))

    def link(match: re.Match[str]) -> str:
        return posixpath.relpath(_on_site(_resolved(match[1], path)), here or ".")

    return LINK.sub(link, markdown)


def _resolved(link: str, path: str) -> str:
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    readme = posixpath.join(target, "README.md")
    return readme if (ROOT / readme).is_file() else target


def _on_site(path: str) -> str:
    """Where a file of the repository is on the site; a README.md at the root would take the place of index.md."""
    return "readme.md" if path == "README.md" else path.removeprefix("docs/")


def _in_repository(uri: str) -> str:
    """Where a page of the site is in the repository."""
    if uri == "readme.md":
        return "README.md"
    return f"docs/{uri}" if (ROOT / "docs" / uri).is_file() else uri
