"""The formats of `peel report` by name, and the suffixes of files that have them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass

from peelcli.report import comparison, hosts, html, junit, markdown
from peelcli.report.overview import Report, document

_TEXT_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a report.

    Attributes:
        render: gives the text, which is written as UTF-8.
        suffixes: of files in this format, lower case.
    """

    render: Callable[[Report], str]
    suffixes: tuple[str, ...]


def _text(report: Report) -> str:
    from rich.console import Console

    file = io.StringIO()
    Console(file=file, width=_TEXT_WIDTH, highlight=False).print(comparison.text(report))
    return file.getvalue()


def _json(report: Report) -> str:
    return json.dumps(document(report), indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Format] = {
    "text": Format(_text, (".txt",)),
    "json": Format(_json, (".json",)),
    "markdown": Format(markdown.render, (".md",)),
    "html": Format(html.render, (".html", ".htm")),
    "junit": Format(junit.render, (".xml",)),
    "github": Format(hosts.github, ()),
    "gitlab": Format(hosts.gitlab, (".json",)),
}
SUFFIXES = tuple(dict.fromkeys(suffix for each in FORMATS.values() for suffix in each.suffixes))


def of_file(suffix: str, wanted: str | None) -> str:
    """The format of a file: the one that is wanted where the suffix is one of its own, else what the suffix says."""
    if wanted is not None and suffix.lower() in FORMATS[wanted].suffixes:
        return wanted
    return next(name for name, each in FORMATS.items() if suffix.lower() in each.suffixes)
