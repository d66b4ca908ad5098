"""Rounds of calls, and a clock that moves in steps."""

import pytest

from peelcli.errors import UsageError
from peelcli.latency import turns


class Played:
    """A session whose calls take what was written down."""

    def __init__(self, seconds):
        self.seconds, self.calls = seconds, 0

    def call(self):
        self.calls += 1
        return self.seconds[(self.calls - 1) % len(self.seconds)]


def timed(first, second, monkeypatch):
    monkeypatch.setattr(turns, "_warmed", lambda _session: 2)
    return turns.take_turns([lambda: Played(first), lambda: Played(second)], seconds=0.0)


def test_a_turn_counts_by_its_fastest_call(monkeypatch):
    _, (none, ratio) = timed([4.0, 5.0], [3.0, 2.0], monkeypatch)
    assert none is None
    assert (ratio.value, ratio.low, ratio.high, ratio.rounds) == (0.5, 0.5, 0.5, 9)


def test_a_call_that_the_clock_shows_as_none_says_nothing(monkeypatch):
    _, (_, ratio) = timed([0.0, 4.0], [2.0, 0.0], monkeypatch)
    assert ratio.value == 0.5


def test_a_round_without_time_says_nothing(monkeypatch):
    steps = [0.0] * 2 + [4.0] * 4  # every third round: two calls a round
    _, (_, ratio) = timed(steps, [2.0], monkeypatch)
    assert (ratio.value, ratio.rounds) == (0.5, 6)


def test_files_that_are_too_fast_for_the_clock_are_refused(monkeypatch):
    with pytest.raises(UsageError, match="less time than the clock"):
        timed([0.0], [1.0], monkeypatch)
