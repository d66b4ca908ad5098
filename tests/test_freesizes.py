"""Open sizes as text."""

import pytest

from peelcli import config
from peelcli.config import GraphForm
from peelcli.errors import UsageError
from peelcli.freesizes import FreeSizes, parse


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2", FreeSizes(None, {2: ""})),
        ("2,3", FreeSizes(None, {2: "", 3: ""})),
        (" 2:height , 3:width ", FreeSizes(None, {2: "height", 3: "width"})),
        ("ids=1:length", FreeSizes("ids", {1: "length"})),
        ("größe=1,2:größe", FreeSizes("größe", {1: "", 2: "größe"})),
    ],
)
def test_what_can_be_read(text, found):
    assert parse(text) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' names no dimensions"),
        ("height", "'height' names no dimensions"),
        ("ids=", "'ids=' names no dimensions"),
        ("1,", "'1,' names no dimensions"),
        ("-1", "'-1' names no dimensions"),
        ("1:2", "'1:2' names no dimensions"),
        ("a=b=1", "'a=b=1' names no dimensions"),
        ("2,2", "a dimension is named twice"),
        ("0,2", "dimension 0 is the batch, which is open without it"),
        ("1:batch", "batch is what the first dimension is called: give another label"),
    ],
)
def test_what_can_not(text, said):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        parse(text)
    assert str(caught.value) == said


def test_as_a_setting():
    assert config.pick(GraphForm, {"dynamic": "2,3"}).dynamic == ("2,3",)
    assert config.pick(GraphForm, {"dynamic": ["a=1", "b=1"]}).dynamic == ("a=1", "b=1")
    for wrong in (["1", "2"], ["a=1", "a=2"], ["a=1", "2"]):
        with pytest.raises(UsageError) as caught:
            config.pick(GraphForm, {"dynamic": wrong})
        assert caught.value.message == (
            f"--dynamic {' '.join(wrong)}: each input is named once, and by its name where there are several"
        )
    with pytest.raises(UsageError, match="--opset 0: "):
        config.pick(GraphForm, {"opset": 0})
