"""Layers that are timed alone, kept for this machine, and made into tables."""

from __future__ import annotations

import json

import pytest

from peelcli.latency import table as tables
from peelcli.latency.cache import Cache, folder
from peelcli.latency.layers import Layer, measured
from peelcli.latency.table import Call, Measurements
from peelcli.records import Share, Size
from peelcli.timings import Conditions

CONV = Layer("conv", 32, 64, (1, 8, 8), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
DEPTHWISE = Layer("conv", 32, 32, (1, 8, 8), (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), 32)
LINEAR = Layer("linear", 32, 10, (1,))
MOVING = Size(0, (Share(0, 1, 1),))


@pytest.fixture(autouse=True)
def cache_here(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_other_widths_of_a_layer():
    assert (CONV.at(16, 8).inputs, CONV.at(16, 8).outputs, CONV.at(16, 8).groups) == (8, 16, 1)
    assert (DEPTHWISE.at(16, 1).inputs, DEPTHWISE.at(16, 1).groups) == (16, 16)
    grouped = Layer("conv", 32, 64, (1, 8, 8), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 4)
    assert (grouped.at(32, 4).inputs, grouped.at(32, 4).groups) == (16, 4)  # each group reads less
    assert (grouped.at(32, 8).inputs, grouped.at(32, 8).groups) == (16, 2)  # there are fewer groups


@pytest.mark.parametrize("layer", [CONV, DEPTHWISE, LINEAR, CONV.at(1, 3)])
def test_every_kind_runs_alone(layer):
    assert measured(layer, Conditions()) > 0


def test_a_layer_is_measured_once(monkeypatch):
    asked = []
    monkeypatch.setattr(tables, "measured", lambda layer, _where: asked.append(layer) or 1e-4 * layer.outputs)
    call = Call("weight", CONV, MOVING, Size(32, ()), ((16, 64), (32,)))
    first = Measurements(Conditions(), Cache(Conditions()))
    assert first.take([call, call]) == 2
    again = Measurements(Conditions(), Cache(Conditions()))
    assert again.take([call]) == 0
    assert len(asked) == 2
    assert again.of(CONV) == 64e-4
    other = Measurements(Conditions(threads=2), Cache(Conditions(threads=2)))
    assert other.take([call]) == 2  # other conditions, other times


def test_an_interrupted_measurement_keeps_what_it_had(monkeypatch):
    def fails_at_the_second(layer, _where):
        if layer.outputs == 64:
            raise KeyboardInterrupt
        return 1e-4

    monkeypatch.setattr(tables, "measured", fails_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        Measurements(Conditions(), Cache(Conditions())).take([Call("w", CONV, MOVING, Size(32), ((16, 64), (32,)))])
    assert CONV.at(16, 32).key() in Cache(Conditions())


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"machine": "another", "seconds": {"k": 1.0}}',
        '{"seconds": 3}',
        '{"machine": OWNER}',
        "[" * 100_000,
    ],
    ids=["empty", "list", "half", "another", "no-table", "no-times", "deep"],
)
def test_a_cache_that_says_nothing_is_made_again(content):
    cache = Cache(Conditions())
    cache.path.parent.mkdir(parents=True)
    cache.path.write_text(content.replace("OWNER", json.dumps(cache._owner)))
    cache = Cache(Conditions())
    assert "k" not in cache
    cache["k"] = 0.5
    cache.save()
    assert Cache(Conditions())["k"] == 0.5


def test_what_others_wrote_meanwhile_stays():
    first, second = Cache(Conditions()), Cache(Conditions())
    first["a"], second["b"] = 1.0, 2.0
    first.save()
    second.save()
    assert (Cache(Conditions())["a"], Cache(Conditions())["b"]) == (1.0, 2.0)
    assert "processor" not in json.loads(first.path.read_text())


def test_a_cache_that_can_not_be_written_is_no_failure(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache = Cache(Conditions())
    cache["k"] = 0.5
    cache.save()
    assert cache["k"] == 0.5


def test_where_the_cache_is(monkeypatch, tmp_path):
    assert folder() == tmp_path / "cache" / "peel" / "latency"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # not valid by the specification
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder() == tmp_path / ".cache" / "peel" / "latency"


def test_a_table_has_the_shape_of_what_was_measured_and_the_height_of_the_network(monkeypatch):
    seconds = {8: 6e-4, 16: 3e-4, 64: 9e-4}
    monkeypatch.setattr(tables, "measured", lambda layer, _where: seconds[layer.outputs])
    call = Call("weight", CONV, MOVING, Size(32, ()), ((8, 16, 64), (32,)))
    taken = Measurements(Conditions(), Cache(Conditions()))
    taken.take([call])
    made = tables.table(call, taken, 18e-4)  # inside of the network it takes twice as long
    assert (made.sizes, made.knots, made.values) == ((MOVING,), ((8, 16, 64),), (1_200_000, 600_000, 1_800_000))
