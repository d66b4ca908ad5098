"""Example inputs: read, made, guessed."""

import copy

import pytest
import torch
from torch import nn

from peelcli.errors import InputError
from peelcli.sources.inputs import InputSpec, describe, guess, make, parse


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("1,3,224,224", InputSpec((1, 3, 224, 224))),
        ("1x3x224x224", InputSpec((1, 3, 224, 224))),
        (" 1 , 3 ", InputSpec((1, 3))),
        ("1X3", InputSpec((1, 3))),
        ("8", InputSpec((8,))),
        ("image:1,3,8,8", InputSpec((1, 3, 8, 8), "image")),
        ("ids:1x77:int64", InputSpec((1, 77), "ids", "int64")),
        ("1,77:int64", InputSpec((1, 77), None, "int64")),
        ("x: 2x2 : half", InputSpec((2, 2), "x", "half")),
    ],
)
def test_every_spelling(text, spec):
    assert parse(text) == spec
    assert parse(str(spec)) == spec


@pytest.mark.parametrize(
    "text", ["", "abc", "1,,3", "1,-3", "1.5,2", "a:b:c", "1x3:int64:2", "1,0,3", "two words:1,3", ":1"]
)
def test_what_is_no_shape(text):
    with pytest.raises(InputError) as caught:
        parse(text)
    assert repr(text) in caught.value.message
    assert "1,3,224,224" in caught.value.hint


def test_a_type_that_does_not_exist_is_answered_with_near_ones():
    with pytest.raises(InputError) as caught:
        parse("1,3:int46")
    assert "int64" in caught.value.hint


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
        (["ids:1,2", "ids:1,3"], "forward takes 3 inputs"),
        (["imag:1,2", "1,2"], "forward has no argument named imag"),
        (["quiet:1"], "forward has no argument named quiet"),
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


def cifar(size):
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * size * size, 2))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (cifar(32), "1x3x32x32"),
        (cifar(28), "1x3x28x28"),
        (cifar(299), "1x3x299x299"),
        (nn.Sequential(nn.Conv2d(5, 4, 3), nn.AdaptiveAvgPool2d(1)), "1x5x224x224"),
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 126, 2)), "1x2x128"),
        (nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * 16**3, 2)), "1x1x16x16x16"),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), "1x784"),
        (nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)), "1x16:int64"),
        (nn.Conv2d(3, 4, 3), "1x3x224x224"),
    ],
)
def test_first_layers_and_trial_sizes(module, shape):
    module.train()
    before = copy.deepcopy(module.state_dict())
    (spec,), note = guess(module)
    assert str(spec) == shape
    assert note.startswith(f"input {shape} guessed from the layer ")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.training


def test_what_timm_and_transformers_say_of_themselves_comes_first():
    module = cifar(32)
    module.pretrained_cfg = {"input_size": (3, 32, 32)}
    assert guess(module)[1].startswith("input 1x3x32x32 guessed from timm's pretrained_cfg")
    module.pretrained_cfg = {"input_size": (3, 99, 99)}  # built at another size than its config says
    assert str(guess(module)[0][0]) == "1x3x32x32"


def test_a_layer_that_is_defined_first_but_runs_last():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2)
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.head(self.conv(x).mean((2, 3)))

    assert str(guess(Backwards())[0][0]) == "1x3x224x224"


def test_a_module_that_can_not_run_on_meta_is_tried_for_real():
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(x) if x.sum().item() < 1e9 else x

    assert str(guess(Looks())[0][0]) == "1x4"


def test_several_required_arguments_are_asked_for():
    with pytest.raises(InputError) as caught:
        guess(Both())
    assert "left, right" in caught.value.message
    assert "--input left:SHAPE --input right:SHAPE" in caught.value.hint


def test_nothing_that_runs():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            raise RuntimeError("I want\na list")

    with pytest.raises(InputError) as caught:
        guess(Picky())
    assert "none could be guessed: I want" in caught.value.message
    assert "--input" in caught.value.hint
