"""A report where a code host shows it: workflow commands of GitHub, code quality of GitLab."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from peelcli.report.comparison import headline
from peelcli.report.escaping import visible
from peelcli.report.overview import Report, gaps

_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A", ":": "%3A", ",": "%2C"})


def github(report: Report) -> str:
    """An error for each bound and check that does not hold, a warning for what is not counted, else a notice.

    Source: GitHub's documentation of workflow commands, which says what has to be escaped.
    """
    lines = [_command("error", report.path, bound, told) for bound, told in problems(report)]
    lines += [_command("warning", report.path, "peel", told) for told in gaps(report.models)]
    if not problems(report):
        lines.append(_command("notice", report.path, "peel", headline(report.models[-1])))
    return "\n".join(lines) + "\n"


def gitlab(report: Report) -> str:
    """A finding for each bound and check that does not hold, in GitLab's code quality format."""
    found = [
        {
            "description": f"{bound}: {told}",
            "check_name": f"peel {bound.partition(' ')[0]}",
            "fingerprint": hashlib.sha256(f"{report.path}\0{bound}".encode()).hexdigest(),
            "severity": "critical",
            "location": {"path": report.path, "lines": {"begin": 1}},
        }
        for bound, told in problems(report)
    ]
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def problems(report: Report) -> list[tuple[str, str]]:
    """What does not hold, and why."""
    return list(_problems(report))


def _problems(report: Report) -> Iterator[tuple[str, str]]:
    yield from ((verdict.bound, verdict.told) for verdict in report.violated)
    yield from ((f"check {check.name}", check.note or "it did not hold") for check in report.failed)


def _command(kind: str, path: str, title: str, told: str) -> str:
    path, title, told = visible(path), visible(title), visible(told)
    return f"::{kind} file={path.translate(_PROPERTY)},title={title.translate(_PROPERTY)}::{told.translate(_DATA)}"
