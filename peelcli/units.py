"""Numbers with units, in both directions: "1G" to 1_000_000_000 and back."""

from __future__ import annotations

import re
from fractions import Fraction

_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}
_PATTERN = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:e(\d{1,2}))?\s*([kmgbt]?)", re.IGNORECASE)


def parse_count(text: str) -> Fraction:
    """Read a count such as "4100000", "1.5G" or "2e9".

    Raises:
        ValueError: the text is no such number.
    """
    match = _PATTERN.fullmatch(text.strip().replace("_", ""))
    if match is None:
        raise ValueError(f"{text!r} is not a number such as 1G, 250M or 50%")
    number, exponent, suffix = match.groups()
    scale: int = 10 ** int(exponent or 0) * _FACTORS[suffix.lower()]
    return Fraction(number) * scale


def parse_size(text: str) -> Fraction:
    """Read a size in bytes such as "10MB", "9.5 MiB" or "700k".

    Raises:
        ValueError: the text is no such size.
    """
    match = re.fullmatch(r"(.+?)\s*(ki?|mi?|gi?)?b?", text.strip(), re.IGNORECASE)
    prefix = (match[2] or "").lower() if match else ""
    scale = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}[prefix]
    if match is None or not re.fullmatch(r"\d+(\.\d*)?|\.\d+", match[1]):
        raise ValueError(f"{text!r} is not a size such as 10MB, 700k or 9.5MiB")
    return Fraction(match[1]) * scale


def parse_milliseconds(text: str) -> Fraction:
    """Read a time such as "5ms", "0.8s" or "250us" in milliseconds.

    Raises:
        ValueError: the text is no such time.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(us|ms|s)", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is not a time such as 5ms, 0.8s or 250us")
    return Fraction(match[1]) * {"us": Fraction(1, 1000), "ms": Fraction(1), "s": Fraction(1000)}[match[2].lower()]


def si(value: float, digits: int = 2) -> str:
    """Write a count with an SI prefix: 4089184256 becomes "4.09 G", 999999999 becomes "1.00 G"."""
    for factor, prefix in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        below = round(abs(value) * 1000 / factor, digits if factor > 1000 else 0)
        if below >= 1000:  # as it would be written with the next smaller prefix
            return f"{value / factor:.{digits}f} {prefix}"
    return f"{value:.0f} "


def macs(value: int) -> str:
    """Write multiply-adds: "1.00 GMACs"."""
    return si(value) + "MACs"


def milliseconds(value: float) -> str:
    """Write a time: "5.12 ms"; 1500 becomes "1.50 s"."""
    return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.3g} ms"


def file_size(value: int) -> str:
    """Write a number of bytes: "13.2 MB" (powers of ten); 999_999_999 becomes "1.0 GB"."""
    for factor, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if round(value * 1000 / factor) >= 1000:
            return f"{value / factor:.1f} {unit}"
    return f"{value} B"


def duration(seconds: float) -> str:
    """Write a short time: "1.23 ms", "45 us"."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} us"


_SECONDS = {"s": Fraction(1), "ms": Fraction(1, 10**3), "us": Fraction(1, 10**6)}


def parse_duration(text: str) -> Fraction:
    """Read a time such as "5ms", "0.2s" or "800us", in seconds.

    Raises:
        ValueError: the text is no such time.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(us|ms|s)", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is no time such as 5ms or 0.2s")
    return Fraction(match[1]) * _SECONDS[match[2].lower()]
