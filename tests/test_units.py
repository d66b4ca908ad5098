"""Numbers with units, in both directions."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peelcli import units


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("4100000", 4_100_000), ("4_100_000", 4_100_000), ("1G", 10**9), ("1g", 10**9),
        ("1.5G", 1_500_000_000), (" 250 M ", 250_000_000), (".5k", 500), ("2.", 2), ("2e9", 2 * 10**9),
        ("2E3k", 2_000_000), ("3B", 3 * 10**9), ("1T", 10**12), ("0.1", Fraction(1, 10)),
    ],
)  # fmt: skip
def test_read(text, value):
    assert units.parse_count(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "G", "abc", "1 GB", "1,5G", "-1G", "+1", "1G1", "50%", "1e", "0x10", "nan", "inf", "1e999", ".", "1..2"],
)
def test_refused(text):
    with pytest.raises(ValueError, match="is not a number such as 1G, 250M or 50%"):
        units.parse_count(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 "), (999, "999 "), (1000, "1.00 k"), (1_234_567, "1.23 M"), (4_089_184_256, "4.09 G"),
        (10**12, "1.00 T"), (999_999_999, "1.00 G"), (999_994_999, "999.99 M"), (-4_089_184_256, "-4.09 G"),
    ],
)  # fmt: skip
def test_written(value, text):
    assert units.si(value) == text
    assert units.macs(value) == text + "MACs"


def test_digits():
    assert units.si(4_089_184_256, 3) == "4.089 G"
    assert units.si(999_999, 0) == "1 M"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (13_200_000, "13.2 MB"), (10**9, "1.0 GB"),
        (999_999_999, "1.0 GB"),
    ],
)  # fmt: skip
def test_file_sizes(value, text):
    assert units.file_size(value) == text


@given(st.integers(1, 9 * 10**14))
def test_what_is_written_can_be_read(value):
    text = units.si(value)
    assert "1000" not in text.partition(".")[0]
    assert units.parse_count(text) == pytest.approx(value, rel=0.006)


@given(st.integers(0, 10**15))
def test_plain_numbers_are_exact(value):
    assert units.parse_count(str(value)) == value
    assert units.parse_count(f"{value:_}") == value


@pytest.mark.parametrize(
    ("text", "seconds"), [("5ms", Fraction(1, 200)), (" 0.2 S", Fraction(1, 5)), ("7us", Fraction(7, 10**6))]
)
def test_durations(text, seconds):
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(("seconds", "text"), [(1.5, "1.5 s"), (0.00123, "1.23 ms"), (4.5e-5, "45 us")])
def test_durations_as_text(seconds, text):
    assert units.duration(seconds) == text
