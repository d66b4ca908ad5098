"""Example inputs: made from what was asked for, or brought by the user."""

import pytest
import torch
from torch import nn

from peelcli.errors import InputError
from peelcli.records import Subject
from peelcli.sources.inputs import arrange, describe, from_function, function_in, make, parse, texts


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.fc = nn.Linear(4, 2)

    def forward(self, ids, image=None, mask=None, *, quiet=False):
        return self.fc(self.table(ids)) + (0 if image is None else image.mean()) * mask.sum()


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, left, right):
        return self.fc(left) + self.fc(right)


def test_names_go_to_their_arguments_and_the_rest_in_order():
    specs = [parse("mask:1,5:int64"), parse("1,5:int64")]
    ids, image, mask = make(specs, Two())
    assert ids.shape == (1, 5)
    assert int(ids.max()) < 10
    assert image is None
    assert mask.tolist() == [[1] * 5]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["image:1,3"], "forward needs ids, which no --input gives"),
        (["1,2", "1,2", "1,2", "1,2"], "forward takes 3 inputs (ids, image, mask), 4 were given"),
        (["ids:1,2", "ids:1,3"], "the input ids is given twice"),
        (["imag:1,2", "1,2"], "forward has no argument named imag: forward(ids, image=None, mask=None, quiet="),
        (["1,2", "quiet=True"], "forward takes quiet by keyword only"),
        (["1,2", "image.left=1x2", "image[0]=1x2"], "the entries of image are not numbered from 0 on"),
        (["1,2", "image.left=1x2", "image.left=1x3"], "the input image.left is given twice"),
    ],
)
def test_inputs_that_do_not_fit_the_signature(texts, said):
    with pytest.raises(InputError) as caught:
        make([parse(text) for text in texts], Two())
    assert said in caught.value.message
    assert caught.value.hint


def test_any_number_of_arguments():
    class Any(nn.Module):
        def forward(self, *values):
            return sum(values)

    assert [tuple(value.shape) for value in make([parse("1,2"), parse("1,3")], Any())] == [(1, 2), (1, 3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_floats_in_the_type_of_the_model(dtype):
    (value,) = make([parse("2,4")], nn.Linear(4, 2).to(dtype))
    assert value.dtype == dtype


def test_seeds_decide():
    module, specs = nn.Linear(4, 2), [parse("2,4")]
    state = torch.get_rng_state()
    assert torch.equal(make(specs, module, 1)[0], make(specs, module, 1)[0])
    assert not torch.equal(make(specs, module, 1)[0], make(specs, module, 2)[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_spec_twice_gives_two_inputs():
    spec = parse("2,4")
    left, right = make([spec, spec], Both())
    assert left.shape == right.shape == (2, 4)


def test_bool_and_describe():
    (value,) = make([parse("1,3:bool")], nn.Linear(3, 1))
    assert value.dtype == torch.bool
    assert describe(value) == "1x3:bool"
    assert describe(torch.zeros(1, 3, 8, 8)) == "1x3x8x8"
    assert describe(None) == "None"


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, batch, images, scale=1.0, mode="sum"):
        return self.fc(batch["image"]) + images[0].mean() * scale


NESTED = ["batch.mask=1x4:int64", "images[1]=3x2x2", "scale=0.5", "images[0]=3x4x4", "batch.image=1x4"]


def test_dicts_and_lists_are_put_together_from_their_paths():
    batch, images, scale = make([parse(text) for text in NESTED], Nested())
    assert set(batch) == {"image", "mask"}
    assert batch["mask"].tolist() == [[1] * 4]
    assert [tuple(image.shape) for image in images] == [(3, 4, 4), (3, 2, 2)]
    assert scale == 0.5


def test_texts_make_the_same_inputs_again():
    module = Nested()
    once = texts(Subject(module, make([parse(text) for text in NESTED], module), "nested"))
    assert once == ("{mask=1x4:int64:1..1, image=1x4}", "[3x4x4, 3x2x2]", "0.5")
    again = make([parse(text) for text in once], module)
    assert texts(Subject(module, again, "nested")) == once


def test_ranges_are_kept_in_values_and_texts():
    ids, image, mask = make([parse("ids=2x3:int64:<9"), parse("mask=2x3:int64:4..7")], Two())
    assert (int(ids.min()), int(ids.max())) == (0, 8)
    assert (int(mask.min()), int(mask.max())) == (4, 7)
    assert texts(Subject(Two(), (ids, image, mask), "two")) == ("2x3:int64:<9", "None", "2x3:int64:4..7")


def test_token_types_are_zero_where_nothing_else_is_said():
    class Typed(nn.Module):
        def forward(self, token_type_ids, segment):
            return token_type_ids

    types, segment = make([parse("1x4:int64:<5"), parse("segment=1x4:int64")], Typed())
    assert types.max() == 4
    assert not segment.any()


def test_examples_by_position_and_by_name():
    ids, mask = torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2)
    assert arrange(Two(), ids) == (ids,)
    assert arrange(Two(), [ids, None, mask]) == (ids, None, mask)
    assert arrange(Two(), {"mask": mask, "ids": ids}) == (ids, None, mask)


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (7, "the example is int, not a tensor"),
        ((1, "a"), "the example is tuple, not a tensor"),
        ({"image": torch.zeros(1)}, "forward needs ids"),
        ({"idz": torch.zeros(1)}, "forward has no argument named idz"),
        ({"ids": torch.zeros(1), "quiet": True}, "forward takes quiet by keyword only"),
    ],
)
def test_examples_that_do_not_fit_the_signature(example, said):
    with pytest.raises(InputError) as caught:
        arrange(Two(), example)
    assert said in caught.value.message
    assert caught.value.hint


def test_a_function_of_the_users(tmp_path):
    file = tmp_path / "given.py"
    file.write_text("import torch\ndef one():\n    return {'ids': torch.randint(0, 9, (2, 3))}\n")
    example, note = from_function(Two(), f"{file}:one")
    assert example[0].shape == (2, 3)
    assert note == "--inputs given.py:one gave the input"
    (told,) = texts(Subject(Two(), example, "two", ("some", note)))
    assert told.startswith("--inputs given.py:one (2x3:int64:")
    assert function_in((told,)) == "given.py:one"
    assert function_in(("1x3",)) is None
    assert function_in(()) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,1,99999999,99999999", "larger than"),
        ("9" * 3000, "larger than"),
        ("9" * 5000, "is no shape"),
        ("1x8:int64:<" + "9" * 30, "wider than int64"),
        ("x=" + "[" * 1500 + "]" * 1500, "is no shape"),
        ("x" * 10_000, "is no shape"),
    ],
)
def test_what_no_memory_or_stack_would_hold(text, said):
    with pytest.raises(InputError, match=said) as caught:
        parse(text)
    assert len(caught.value.message) < 200
