"""Example inputs as text, and back."""

import math

import pytest
import torch

from peelcli.errors import InputError
from peelcli.inputtext import InputSpec, Literal, Nest, parse
from peelcli.sources.specs import describe


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("1,3,224,224", InputSpec((1, 3, 224, 224))),
        ("1x3x224x224", InputSpec((1, 3, 224, 224))),
        (" 1 , 3 ", InputSpec((1, 3))),
        ("1X3", InputSpec((1, 3))),
        ("8", InputSpec((8,))),
        ("8,", InputSpec((8,))),
        ("scalar:int64:<9", InputSpec((), None, "int64", 0, 9)),
        ("image:1,3,8,8", InputSpec((1, 3, 8, 8), "image")),
        ("image=1,3,8,8", InputSpec((1, 3, 8, 8), "image")),
        ("ids:1x77:int64", InputSpec((1, 77), "ids", "int64")),
        ("1,77:int64", InputSpec((1, 77), None, "int64")),
        ("x: 2x2 : half", InputSpec((2, 2), "x", "half")),
        ("input_ids=2x16:int64:<30522", InputSpec((2, 16), "input_ids", "int64", 0, 30522)),
        ("ids=2x16:<7", InputSpec((2, 16), "ids", "int64", 0, 7)),
        ("ids:2x16:int32:-3..5", InputSpec((2, 16), "ids", "int32", -3, 6)),
        ("x=8,", InputSpec((8,), "x")),
        ("x:8", InputSpec((8,), "x")),
        ("batch.image=1x3x64x64", InputSpec((1, 3, 64, 64), "batch.image")),
        ("images[0]=3x64x64", InputSpec((3, 64, 64), "images[0]")),
        ("return_dict=False", Literal(False, "return_dict")),
        ("scale=0.5", Literal(0.5, "scale")),
        ("steps=4", Literal(4, "steps")),
        ("=4", Literal(4)),
        ("-4", Literal(-4)),
        ("1e-3", Literal(1e-3)),
        ("None", Literal(None)),
        ("mode=nearest-exact", Literal("nearest-exact", "mode")),
        ("mode='a, b'", Literal("a, b", "mode")),
        ("[3x4, 5, 'a, ]', None]", Nest(list, (InputSpec((3, 4)), Literal(5), Literal("a, ]"), Literal(None)))),
        ("x=(1x2,)", Nest(tuple, (InputSpec((1, 2)),), "x")),
        ("{a=1x2, b=[8x]}", Nest(dict, (InputSpec((1, 2)), Nest(list, (InputSpec((8,)),))), keys=("a", "b"))),
        ("[]", Nest(list, ())),
    ],
)
def test_every_spelling(text, spec):
    assert parse(text) == spec
    assert parse(str(spec)) == spec


@pytest.mark.parametrize(
    "text",
    [
        *("", "abc", "1,,3", "1,-3", "1.5,2", "a:b:c", "1x3:int64:2", "1,0,3", "two words:1,3", ":1", "x=", "x=1x3y"),
        *(
            "[1x2",
            "{1x2}",
            "{a=1x2, a=1x2}",
            "[(1x2])",
            "['a]",
            "[1]]",
            "x='a', 'b'",
            "x='a' 'b",
            "x='a' + 1",
            "x[a]=1x2",
        ),
    ],
)
def test_what_is_no_input(text):
    with pytest.raises(InputError) as caught:
        parse(text)
    assert repr(text) in caught.value.message
    assert "1,3,224,224" in caught.value.hint


def test_a_type_that_does_not_exist_is_answered_with_near_ones():
    with pytest.raises(InputError) as caught:
        parse("1,3:int46")
    assert "int64" in caught.value.hint


@pytest.mark.parametrize("text", ["1x3:float32:<5", "1x3:<0", "1x3:int64:4..3"])
def test_ranges_that_make_no_sense(text):
    with pytest.raises(InputError, match="range of values"):
        parse(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.zeros(1, 3, 8, 8), "1x3x8x8"),
        (torch.zeros(1, 3, dtype=torch.float16), "1x3:float16"),
        (torch.tensor([[3, 9]]), "1x2:int64:3..9"),
        (torch.tensor(7), "scalar:int64:7..7"),
        (torch.tensor([True, False]), "2:bool"),
        (torch.tensor([True, True]), "2:bool:1..1"),
        (None, "None"),
        (4, "=4"),
        (0.5, "0.5"),
        ("a b", "'a b'"),
        ([torch.zeros(3), 4], "[3x, 4]"),
        ({"a": (torch.zeros(1, 2),)}, "{a=(1x2,)}"),
        (math.inf, "<float>"),
        ({"two words": 1}, "<dict>"),
        (object(), "<object>"),
    ],
)
def test_values_in_words(value, text):
    assert describe(value) == text
    if not text.startswith("<"):
        assert str(parse(text)) == text


def test_the_models_own_type_goes_without_saying():
    assert describe(torch.zeros(1, 3, dtype=torch.float16), torch.float16) == "1x3"
    assert describe(torch.zeros(1, 3), torch.float16) == "1x3:float32"
