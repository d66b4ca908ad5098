"""Names that come from models, made safe for the formats that they are written into."""

from __future__ import annotations

import re
from html import escape

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0, escaped or not
_MARKUP = str.maketrans({char: f"\\{char}" for char in "\\`*_{}[]<>#|~"} | {"\n": " ", "\r": " ", "&": "&amp;"})


def xml(text: str) -> str:
    """Text that XML may hold; what it may not is replaced. Angle brackets are the writer's to escape."""
    return _ILLEGAL.sub("�", text)


def markdown(text: str) -> str:
    """Text in which nothing is markup, in one line."""
    return visible(text).translate(_MARKUP)


def html(text: str) -> str:
    """Text in which nothing is an element or the end of an attribute, nor an order to a terminal."""
    return escape(visible(text))


def visible(text: str) -> str:
    """Text for a terminal: what it would obey instead of showing is written out, as Python would."""
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)
