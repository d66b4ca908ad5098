"""Inputs for the proofs: other values and batch sizes that the model still accepts."""

from __future__ import annotations

import torch
from torch import nn

from peelcli.export.inputs import Example, run
from peelcli.export.modules import evaluated, largest_difference, precisions, relative_difference


def test_the_batch_is_the_first_tensors_leading_size():
    assert Example.of((3, torch.tensor(1.0), {"a": torch.zeros(4, 2)})).batch == 4
    assert Example.of((torch.tensor(1.0), None)).batch == 0


def test_single_samples_in_a_list_have_no_batch():
    assert Example.of(([torch.zeros(3, 8, 8)],)).batch == 0


def test_only_tensors_with_the_batch_in_front_are_resized():
    image, table, scale = torch.randn(1, 3), torch.randn(7, 2), torch.tensor(2.0)
    resized = Example.of((image, [table], scale, "mode")).resized(3)
    assert resized.arguments[0].shape == (3, 3)
    assert torch.equal(resized.arguments[0], image.expand(3, 3))
    assert resized.arguments[1][0] is table
    assert resized.arguments[2:] == (scale, "mode")
    assert Example.of((torch.arange(8).reshape(4, 2),)).resized(2).arguments[0].tolist() == [[0, 1], [2, 3]]


def test_floats_get_their_own_values_in_another_order():
    image = torch.rand(2, 3, 4)
    other = Example.of((image,)).shuffled(2, 0).arguments[0]
    assert other.shape == image.shape
    assert not torch.equal(other, image)
    assert torch.equal(other.flatten().sort().values, image.flatten().sort().values)


def test_a_constant_example_is_replaced_by_random_numbers():
    other = Example.of((torch.zeros(1, 50, dtype=torch.float16),)).shuffled(2, 0).arguments[0]
    assert other.dtype == torch.float16
    assert len(other.unique()) > 10


def test_indices_keep_their_rows():
    rows = torch.tensor([[1, 9], [2, 8], [3, 7]])
    orders = {tuple(map(tuple, Example.of((rows,)).shuffled(3, seed).arguments[0].tolist())) for seed in range(9)}
    assert len(orders) > 1
    assert all(sorted(order) == [(1, 9), (2, 8), (3, 7)] for order in orders)


def test_the_same_seed_gives_the_same_input_and_leaves_the_users_generator_alone():
    example = Example.of((torch.zeros(1, 4),))
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, second, third = (example.shuffled(2, seed).arguments[0] for seed in (5, 5, 6))
    run(nn.Dropout(), example)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(torch.rand(1), expected)


def test_a_module_is_evaluated_without_touching_it():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    shared, converted = evaluated(module), evaluated(module, torch.float64)
    assert module.training
    assert not shared.training
    assert shared[0].weight is module[0].weight
    assert precisions(module) == {torch.float32}
    assert precisions(converted) == {torch.float64}
    assert converted[1].num_batches_tracked.dtype == torch.int64
    assert isinstance(converted[0].weight, nn.Parameter)


def test_differences_worked_by_hand():
    a, b = torch.tensor([1.0, -4.0]), torch.tensor([1.5, -4.0])
    assert largest_difference([b], [a]) == 0.5
    assert relative_difference([b], [a]) == 0.125
    assert relative_difference([a, b], [a, a]) == 0.125
    assert relative_difference([torch.tensor([0.25])], [torch.zeros(1)]) == 0.25
    assert relative_difference([], []) == 0.0
    assert relative_difference([torch.zeros(0)], [torch.zeros(0)]) == 0.0


def test_what_is_not_alike_differs_without_bound():
    one, nan, inf = torch.tensor([1.0]), torch.tensor([float("nan")]), torch.tensor([float("inf")])
    unlike = [
        ([one], []),
        ([one], [torch.ones(1, 1)]),
        ([one], [one.double()]),
        ([nan], [one]),
        ([one], [nan]),
        ([inf], [-inf]),
        ([nan], [inf]),
    ]
    for ours, reference in unlike:
        assert largest_difference(ours, reference) == float("inf")
        assert relative_difference(ours, reference) == float("inf")
    assert largest_difference([nan], [nan]) == 0.0
    assert largest_difference([inf], [inf]) == 0.0
