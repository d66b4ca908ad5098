"""Shapes: what files say, what users say, and where the two do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from peelcli.errors import InputError
from peelcli.latency import inputs
from peelcli.latency.inputs import Given, Wanted

IMAGE = Wanted("input", "float", ("batch", 3, 32, 32))
IDS = Wanted("ids", "int64", ("batch", "tokens"))


def test_texts():
    assert inputs.read(["1,3,32,32", "ids=1x77", " mask : 2 x 77 "]) == (
        Given(None, (1, 3, 32, 32)),
        Given("ids", (1, 77)),
        Given("mask", (2, 77)),
    )


@pytest.mark.parametrize("text", ["", "big", "1,,3", "ids=", "1,3,-1"])
def test_no_shape(text):
    with pytest.raises(InputError, match="is no shape"):
        inputs.read([text])


def test_an_open_batch_is_one_or_what_is_asked_for():
    assert inputs.shapes([IMAGE], (), None, "f") == {"input": (1, 3, 32, 32)}
    assert inputs.shapes([IMAGE], (), 8, "f") == {"input": (8, 3, 32, 32)}
    assert inputs.shapes([IMAGE], [Given(None, (4, 3, 32, 32))], None, "f") == {"input": (4, 3, 32, 32)}


def test_shapes_without_a_name_go_to_the_inputs_in_order():
    found = inputs.shapes([IMAGE, IDS], [Given("ids", (1, 5)), Given(None, (1, 3, 32, 32))], None, "f")
    assert found == {"input": (1, 3, 32, 32), "ids": (1, 5)}


@pytest.mark.parametrize(
    ("given", "batch", "message"),
    [
        ([], None, "leaves the shape of ids open: batchxtokens"),
        ([Given("idz", (1, 5))], None, "has no input 'idz'"),
        ([Given(None, (1, 5)), Given(None, (1, 5))], None, "has 1 inputs"),
        ([Given(None, (1, 5, 5))], None, "not 1x5x5"),
    ],
)
def test_what_can_not_be_run(given, batch, message):
    with pytest.raises(InputError, match=message):
        inputs.shapes([IDS], given, batch, "f")


def test_a_fixed_batch_stays():
    with pytest.raises(InputError, match="its batch is fixed to 1"):
        inputs.shapes([Wanted("input", "float", (1, 3, 8, 8))], (), 2, "f")


def test_whole_numbers_are_small_and_strings_are_refused():
    made = inputs.feed([IMAGE, IDS], {"input": (1, 3, 4, 4), "ids": (1, 9)}, "f")
    assert made["input"].dtype == np.float32
    assert set(made["ids"].ravel()) <= {0, 1}
    with pytest.raises(InputError, match="of type string"):
        inputs.feed([Wanted("text", "string", (1,))], {"text": (1,)}, "f")
