"""Samples from Python: which part of an item is what, batches cut into samples, and what user code raises."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from peelcli.config import Calibration
from peelcli.errors import SourceError
from peelcli.records import Subject
from peelcli.samples import Samples, spread
from peelcli.sources.data import class_ids, load_samples
from tests.support import nets  # noqa: F401  - it enters the nets in the table
from tests.support.parts import NETS
from tests.support.samples import Detector, refused

USUAL = Calibration()
X, Y = torch.arange(6.0).view(6, 1).expand(6, 7), torch.tensor([5, 4, 3, 2, 1, 0])


def firsts(samples):
    return [float(inputs[0].flatten()[0]) for inputs in samples.inputs]


@pytest.mark.parametrize(
    "data",
    [
        (X, Y), {"x": X, "y": Y}, {"input": X, "labels": Y.tolist()}, [(X, Y)], [[X[:4], Y[:4]], [X[4:], Y[4:]]],
        [(X[n], int(Y[n])) for n in range(6)], [(X[n : n + 1], Y[n : n + 1]) for n in range(6)],
        [((X[n],), Y[n]) for n in range(6)], [{"input": X[n], "label": Y[n]} for n in range(6)],
        [({"input": X}, Y)], [(X.numpy(), Y.numpy())], [(X, Y.tolist())], TensorDataset(X, Y),
        DataLoader(TensorDataset(X, Y), batch_size=4), ((x, y) for x, y in zip(X, Y, strict=True)),
        (list(X), Y.tolist()), [list(X.numpy()), Y.tolist()],
    ],
)  # fmt: skip
def test_inputs_and_targets_in_every_shape(vectors, data):
    samples = load_samples(data, vectors, USUAL)
    assert firsts(samples) == [0, 1, 2, 3, 4, 5]
    assert class_ids(samples) == [5, 4, 3, 2, 1, 0]
    assert all(inputs[0].shape == (1, 7) and len(inputs) == 1 for inputs in samples.inputs)


@pytest.mark.parametrize("data", [X, X.numpy(), [X], list(X), tuple(X), {"input": X}, [{"input": x} for x in X]])
def test_inputs_alone(vectors, data):
    samples = load_samples(data, vectors, Calibration(samples=4))
    assert len(samples) == 4
    assert samples.targets is None


def test_several_arguments(two):
    ids, image, y = torch.zeros(4, 5, dtype=torch.int64), torch.randn(4, 3, 8, 8), torch.arange(4)
    for data in (
        [((ids, image), y)], [(ids, image, None, 2.0, y)], [{"ids": ids, "image": image, "labels": y}],
        [({"ids": ids, "image": image}, y)],
    ):  # fmt: skip
        samples = load_samples(data, two, USUAL)
        assert class_ids(samples) == [0, 1, 2, 3]
        assert [value.shape for value in samples.inputs[3][:2]] == [(1, 5), (1, 3, 8, 8)]
    assert load_samples([(ids, image)], two, USUAL).targets is None
    assert load_samples([(ids, image)], two, USUAL).inputs[0][2:] == (None, 0.5)


def test_an_optional_argument_is_no_target_where_the_example_has_it(vectors):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(7, 3)

        def forward(self, x, mask=None):
            return self.fc(x if mask is None else x * mask)

    alone = Subject(Masked(), (torch.randn(1, 7),), "alone")
    assert class_ids(load_samples([(X, Y)], alone, USUAL)) == Y.tolist()
    both = Subject(alone.module, (torch.randn(1, 7), torch.ones(1, 7)), "both")
    assert len(load_samples([(X, torch.ones(6, 7))], both, USUAL).inputs[0]) == 2
    assert class_ids(load_samples([(X, Y)], both, USUAL)) == Y.tolist()


def test_detectors_and_their_targets():
    images = [torch.randn(3, 8, 8), torch.randn(3, 9, 7)]
    boxes = [{"boxes": torch.zeros(1, 4)}, {"boxes": torch.ones(2, 4)}]
    detector = Subject(Detector(), ([torch.randn(3, 8, 8)],), "detector")
    for data in ([(images, boxes)], list(zip(images, boxes, strict=True))):
        samples = load_samples(data, detector, USUAL)
        assert [[i.shape for i in inputs[0]] for inputs in samples.inputs] == [[(3, 8, 8)], [(3, 9, 7)]]
        assert [target["boxes"].shape for target in samples.targets] == [(1, 4), (2, 4)]
    assert len(load_samples([images, images], detector, USUAL)) == 4


def test_tensors_that_share_no_batch_are_one_sample():
    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, nodes, edges):
            return self.fc(nodes)[edges[0]]

    graph = Subject(Graph(), (torch.randn(5, 4), torch.zeros(2, 9, dtype=torch.int64)), "graph")
    data = [(torch.randn(n, 4), torch.zeros(2, n + 1, dtype=torch.int64)) for n in (3, 4, 6)]
    samples = load_samples(data, graph, USUAL)
    assert [inputs[0].shape for inputs in samples.inputs] == [(3, 4), (4, 4), (6, 4)]


def test_sizes_may_differ_where_the_model_takes_them(pictures):
    samples = load_samples([torch.randn(3, 16, 16), torch.randn(2, 3, 9, 20)], pictures, USUAL)
    assert [inputs[0].shape[2:] for inputs in samples.inputs] == [(16, 16), (9, 20), (9, 20)]
    assert "sample 1 does not fit" in refused([X[:1], torch.zeros(1, 8)], vectors_of(7), USUAL).message


def vectors_of(width):
    return Subject(nn.Linear(width, 3), (torch.randn(1, width),), "vectors")


def test_a_reused_buffer_is_copied(vectors):
    def give():
        buffer = np.zeros(7, np.float32)
        for number in range(3):
            buffer[:] = number
            yield buffer

    assert firsts(load_samples(give(), vectors, USUAL)) == [0, 1, 2]


def test_data_sets_of_the_old_style_are_spread(vectors):
    class Old(Dataset):
        def __len__(self):
            return 100

        def __getitem__(self, at):
            return torch.full((7,), float(at)), at

    found = firsts(load_samples(Old(), vectors, Calibration(samples=4)))
    assert [int(first) // 25 for first in found] == [0, 1, 2, 3]


def test_samples_are_only_cut(vectors):
    ready = Samples(tuple((x[None],) for x in X), "ready", tuple(range(6)))
    assert load_samples(ready, vectors, USUAL) is ready
    assert load_samples(ready, vectors, Calibration(samples=2)).targets == tuple(spread(6, 2))
    assert "ready holds 1 sample, and at least 2 are needed" in refused(ready.some([0]), vectors, USUAL).message


def test_a_function_that_never_ends(write, vectors):
    where = write("""
        import torch
        def give():
            number = 0
            while True:
                yield torch.full((3, 7), float(number)), torch.arange(3)
                number += 1
    """)
    told = []
    samples = load_samples(where, vectors, Calibration(samples=4), lambda *numbers: told.append(numbers))
    assert firsts(samples) == [0, 0, 0, 1]
    assert class_ids(samples) == [0, 1, 2, 0]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert samples.name == "own.py:give"


def test_nor_does_one_whose_batches_are_empty(write, vectors):
    where = write("import torch\ndef give():\n    while True: yield torch.empty(0, 7)\n")
    assert "gave no samples" in refused(where, vectors, USUAL).message


def test_targets_that_are_not_as_many_as_inputs(vectors):
    assert "6 inputs, and 5 targets" in refused((X, Y[:5]), vectors, USUAL).message


@pytest.mark.parametrize("data", [X.to_sparse(), [x.to_sparse() for x in X], {"x": X.to_sparse(), "y": Y}])
def test_sparse_tensors(vectors, data):
    found = refused(data, vectors, USUAL)
    assert "sparse" in found.message
    assert "to_dense" in found.hint


def test_nor_does_one_of_nothing_but_nan(write, vectors):
    where = write("import torch\ndef give():\n    while True:\n        yield torch.full((7,), torch.nan)\n")
    assert "5 of 5 samples hold NaN" in refused(where, vectors, Calibration(samples=4)).message


@pytest.mark.parametrize(
    "body", ["return torch.ones(4, 7), torch.arange(4)", "return {'x': np.ones((4, 7)), 'y': [0, 1, 2, 3]}"]
)
def test_a_function_that_returns(write, vectors, body):
    samples = load_samples(write(f"import numpy as np, torch\ndef give():\n    {body}\n"), vectors, USUAL)
    assert class_ids(samples) == [0, 1, 2, 3]


def test_random_values_are_the_same_in_every_run_and_nobodys_state_changes(write, vectors):
    where = write("""
        import numpy as np, random, torch
        def give():
            for _ in range(3):
                yield torch.rand(7) + random.random() + np.random.rand()
    """)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    one, two = load_samples(where, vectors, USUAL), load_samples(where, vectors, USUAL)
    assert firsts(one) == firsts(two)
    assert len(set(firsts(one))) == 3
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def give():\n    raise ValueError('no data')\n", "own.py:give raised ValueError: no data (own.py:2)"),
        ("def give():\n    yield 1 / 0\n", "own.py:give raised ZeroDivisionError: division by zero (own.py:2)"),
        ("def give():\n    return 7\n", "own.py:give is int, which gives no samples"),
        ("def give():\n    pass\n", "own.py:give returned None, not samples"),
        ("def give():\n    return 'folder'\n", "own.py:give is str, which gives no samples"),
        ("def give():\n    return iter(())\n", "own.py:give gave no samples"),
        ("def give():\n    yield 'a', 'b'\n", "own.py:give gave str as a sample, not a tensor"),
        ("def give():\n    yield None\n", "own.py:give gave NoneType as a sample, not a tensor"),
        ("def give(path):\n    pass\n", "missing 1 required positional argument"),
        (
            "import torch\ndef give():\n    yield torch.ones(3, 7), torch.ones(2)\n",
            "3 inputs in a batch, and targets of",
        ),
        ("import torch\ndef give():\n    yield torch.ones(3, 7), [1, 2]\n", "3 inputs in a batch, and 2 targets"),
        ("import torch\ndef give():\n    yield torch.ones(3, 7), 2\n", "3 inputs in a batch, and one int as target"),
        (
            "import torch\ndef give():\n    yield torch.ones(7)\n    yield torch.ones(7), 2\n",
            "some samples have targets",
        ),
        ("import torch\ndef give():\n    yield torch.ones(7)\n    exit(3)\n", "raised SystemExit: 3 (own.py:4)"),
        ("import torch\ndef give():\n    yield (torch.ones(7),) * 3\n", "own.py:give gave 3 inputs for forward(input)"),
    ],
)
def test_what_goes_wrong_is_told_in_one_line(write, vectors, text, said):
    assert said in refused(write(text), vectors, USUAL).message


@pytest.mark.parametrize(
    ("where", "said"), [("own.py:giv", "own.py has no function giv"), ("absent.py:give", "absent.py: no such file")]
)
def test_functions_that_are_not_there(write, vectors, where, said):
    write("def give(): pass\n")
    with pytest.raises(SourceError, match=said):
        load_samples(where, vectors, USUAL)


@pytest.mark.parametrize("data", [7, None, b"abc", object()])
def test_what_is_no_data(vectors, data):
    assert "which gives no samples" in refused(data, vectors, USUAL).message


# What these two take can't be put together sample by sample.
@pytest.mark.parametrize("name", sorted(set(NETS) - {"batch_of_two", "no_batch"}))
def test_every_small_net_takes_random_samples_of_its_own_shape(name):
    module, example = NETS[name]()
    subject = Subject(module, example, name)
    item = tuple(torch.rand_like(value) if value.is_floating_point() else value for value in example)
    samples = load_samples([item, item], subject, USUAL)
    assert len(samples) == 2 * len(example[0])
    assert samples.targets is None
