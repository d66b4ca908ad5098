"""Shapes: what files say, what users say, and where the two do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from peelcli.errors import InputError
from peelcli.inputtext import InputSpec
from peelcli.latency import inputs
from peelcli.latency.inputs import Wanted

IMAGE = Wanted("input", "float", ("batch", 3, 32, 32))
IDS = Wanted("ids", "int64", ("batch", "tokens"))


def shapes(wanted, given=(), batch=None):
    return {name: spec.shape for name, spec in inputs.specs(wanted, given, batch, "f").items()}


def test_texts():
    assert inputs.read(["1,3,32,32", "ids=1x77", " mask : 2 x 77 ", "/stem/x:0 = 5"]) == (
        InputSpec((1, 3, 32, 32)),
        InputSpec((1, 77), "ids"),
        InputSpec((2, 77), "mask"),
        InputSpec((5,), "/stem/x:0"),
    )


@pytest.mark.parametrize("text", ["", "big", "1,,3", "ids=", "1,3,-1"])
def test_no_shape(text):
    with pytest.raises(InputError, match="is no shape"):
        inputs.read([text])


def test_an_open_batch_is_one_or_what_is_asked_for():
    assert shapes([IMAGE]) == {"input": (1, 3, 32, 32)}
    assert shapes([IMAGE], batch=8) == {"input": (8, 3, 32, 32)}
    assert shapes([IMAGE], [InputSpec((4, 3, 32, 32))]) == {"input": (4, 3, 32, 32)}


def test_shapes_without_a_name_go_to_the_inputs_in_order():
    found = shapes([IMAGE, IDS], [InputSpec((1, 5), "ids"), InputSpec((1, 3, 32, 32))])
    assert found == {"input": (1, 3, 32, 32), "ids": (1, 5)}


@pytest.mark.parametrize(
    ("given", "batch", "message"),
    [
        ([], None, "leaves the shape of ids open: batchxtokens"),
        ([InputSpec((1, 5), "idz")], None, "has no input 'idz'"),
        ([InputSpec((1, 5)), InputSpec((1, 5))], None, "has 1 inputs"),
        ([InputSpec((1, 5, 5))], None, "not 1x5x5"),
    ],
)
def test_what_can_not_be_run(given, batch, message):
    with pytest.raises(InputError, match=message):
        inputs.specs([IDS], given, batch, "f")


def test_a_fixed_batch_stays():
    with pytest.raises(InputError, match="its batch is fixed to 1"):
        inputs.specs([Wanted("input", "float", (1, 3, 8, 8))], (), 2, "f")


def test_whole_numbers_are_small_or_in_the_range_given():
    made = inputs.feed(inputs.specs([IMAGE, IDS], [InputSpec((1, 99), "ids")], None, "f"))
    assert made["input"].dtype == np.float32
    assert (made["ids"].dtype, set(made["ids"].ravel())) == (np.int64, {0, 1})
    made = inputs.feed(inputs.specs([IDS], inputs.read(["ids=1x99:<5"]), None, "f"))
    assert set(made["ids"].ravel()) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("wanted", "text", "message"),
    [
        (Wanted("text", "string", (1,)), "1", "of type string"),
        (IDS, "1x5:float", "is of type int64, not float"),
        (IMAGE, "1x3x32x32:<5", "is of type float32, not int64"),
    ],
)
def test_types_are_those_of_the_file(wanted, text, message):
    with pytest.raises(InputError, match=message):
        inputs.specs([wanted], inputs.read([text]), None, "f")
