"""Names that come from models, made safe for the formats that they are written into."""

from __future__ import annotations

import re

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0, escaped or not
_MARKUP = str.maketrans({char: f"\\{char}" for char in "\\`*_{}[]<>#|~"} | {"\n": " ", "\r": " ", "&": "&amp;"})


def xml(text: str) -> str:
    """Text that XML may hold; what it may not is replaced. Angle brackets are the writer's to escape."""
    return _ILLEGAL.sub("�", text)


def markdown(text: str) -> str:
    """Text in which nothing is markup, in one line."""
    return text.translate(_MARKUP)
