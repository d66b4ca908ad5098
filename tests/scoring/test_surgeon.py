"""What channels leave behind: against least squares solved directly, and shrinkage by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from peelcli.records import Slice
from peelcli.scoring.moments import Moments
from peelcli.scoring.surgeon import Reader, damping, principal_losses, shrunk

MANY = 10**12  # rows: nothing is shrunk


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance_of(groups: int, inputs: int, seed: int = 0) -> torch.Tensor:
    rows = drawn(groups, inputs, 3 * inputs, seed=seed)
    return rows @ rows.transpose(1, 2) / (3 * inputs)


def moments_of(matrix: torch.Tensor, covariance: torch.Tensor, sensitivity: torch.Tensor | None = None) -> Moments:
    """Of a weight (groups, outputs, inputs, positions) whose inputs have mean 0."""
    outputs = matrix.shape[0] * matrix.shape[1]
    if sensitivity is None:
        sensitivity = torch.ones(outputs, dtype=torch.float64)
    return Moments(matrix, MANY, torch.zeros(matrix.shape[0], matrix.shape[2]), covariance * MANY, [], sensitivity)


def least_loss(
    matrix: torch.Tensor, covariance: torch.Tensor, removed: list[int], sensitivity: torch.Tensor | None = None
) -> float:
    """The damped squared error of all outputs when the inputs left are weighted anew, by least squares on rows."""
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    rows = torch.linalg.cholesky(covariance + torch.diag_embed(damping(diagonal))).transpose(1, 2)  # X with X'X = C
    stay = [i for i in range(matrix.shape[2]) if i not in removed]
    total = 0.0
    scales = torch.ones(matrix.shape[:2], dtype=torch.float64)
    if sensitivity is not None:
        scales = sensitivity.reshape(matrix.shape[:2])
    for x, weights, scale in zip(rows, matrix, scales, strict=True):
        for weight, factor in zip(weights, scale, strict=True):
            for column in weight.T:  # each kernel position
                wanted = (x @ column)[:, None]
                found = x[:, stay] @ torch.linalg.lstsq(x[:, stay], wanted).solution if stay else 0.0
                total += float(factor * (found - wanted).square().sum())
    return total


def reader_of(group, moments: Moments) -> Reader:
    (piece,) = (piece for piece in group.slices if piece.role == "in")
    return Reader.of(group, piece, moments, MANY)


def remove(reader: Reader, gone: list[int]) -> None:
    stay = [position for position in range(len(reader.columns)) if position not in gone]
    reader.remove(torch.tensor(gone), torch.tensor(stay))


SHAPES = {"linear": (1, 3, 5, 1), "kernel of 3 x 2": (1, 3, 5, 6), "2 conv groups": (2, 3, 5, 4)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_cost_of_each_channel_is_the_least_squares_loss(make_group, shape, weighted):
    matrix, covariance = drawn(*shape, seed=1), covariance_of(shape[0], 5)
    sensitivity = drawn(shape[0] * shape[1], seed=2).square() if weighted else None
    group = make_group("x", 5, ("w", 1, "in", tuple((i,) for i in range(5))))
    reader = reader_of(group, moments_of(matrix, covariance, sensitivity))
    expected = [least_loss(matrix, covariance, [channel], sensitivity) for channel in range(5)]
    assert reader.costs().tolist() == pytest.approx(expected, rel=1e-9)


def test_by_hand(make_group):
    # y = 2 a + b with variances 1 and correlation r: b makes up for a up to 4 (1 - r^2), a for b up to 1 - r^2.
    matrix = torch.tensor([2.0, 1]).double().view(1, 1, 2, 1)
    covariance = torch.tensor([[[1.0, 0.6], [0.6, 1]]]).double()
    group = make_group("x", 2, ("w", 1, "in", ((0,), (1,))))
    reader = reader_of(group, moments_of(matrix, covariance))
    assert reader.costs().tolist() == pytest.approx([4 * 0.64, 0.64], rel=3e-3)  # up to the damping
    remove(reader, [1])
    assert reader.costs().tolist() == pytest.approx([(2 + 0.6) ** 2], rel=3e-3)  # a carries 0.6 of b now


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_one_after_another_adds_up_to_all_at_once(make_group, shape):
    matrix, covariance = drawn(*shape, seed=3), covariance_of(shape[0], 5, seed=4)
    group = make_group("x", 5, ("w", 1, "in", tuple((i,) for i in range(5))))
    reader = reader_of(group, moments_of(matrix, covariance))
    left, gone, total = [0, 1, 2, 3, 4], [], 0.0
    for channel in (3, 0, 4, 1):
        position = left.index(channel)
        total += float(reader.costs()[position])
        remove(reader, [position])
        left.remove(channel)
        gone.append(channel)
        assert total == pytest.approx(least_loss(matrix, covariance, gone), rel=1e-9)
    total += float(reader.costs()[0])  # the last one
    assert total == pytest.approx(least_loss(matrix, covariance, [0, 1, 2, 3, 4]), rel=1e-9)


def test_several_at_once_is_the_same_as_one_after_another(make_group):
    matrix, covariance = drawn(1, 3, 6, 2, seed=5), covariance_of(1, 6, seed=6)
    group = make_group("x", 6, ("w", 1, "in", tuple((i,) for i in range(6))))
    one, two = (reader_of(group, moments_of(matrix, covariance)) for _ in range(2))
    remove(one, [4])
    remove(one, [1])
    remove(two, [1, 4])
    assert torch.allclose(one.costs(), two.costs(), rtol=1e-9)
    assert torch.equal(one.columns, two.columns)


def test_bundles_of_two_go_together(make_group):
    matrix, covariance = drawn(1, 3, 6, 2, seed=7), covariance_of(1, 6, seed=8)
    group = make_group("x", 6, ("w", 1, "in", tuple((i,) for i in range(6))))
    group = replace(group, bundles=((0, 3), (1, 4), (2, 5)))
    reader = reader_of(group, moments_of(matrix, covariance))
    expected = [least_loss(matrix, covariance, list(bundle)) for bundle in group.bundles]
    assert reader.costs().tolist() == pytest.approx(expected, rel=1e-9)
    first = float(reader.costs()[1])
    remove(reader, [1])
    assert first + float(reader.costs()[1]) == pytest.approx(least_loss(matrix, covariance, [1, 4, 2, 5]), rel=1e-9)


def test_inputs_of_other_groups_stay_and_make_up_too(make_group):
    # a concat: the group's channels are inputs 1 and 4; a channel that this weight does not read costs nothing here
    matrix, covariance = drawn(1, 3, 5, 1, seed=9), covariance_of(1, 5, seed=10)
    group = make_group("x", 3, ("w", 1, "in", ((1,), (), (4,))))
    reader = reader_of(group, moments_of(matrix, covariance))
    expected = [least_loss(matrix, covariance, [1]), 0.0, least_loss(matrix, covariance, [4])]
    assert reader.costs().tolist() == pytest.approx(expected, rel=1e-9)
    remove(reader, [0])
    joint = least_loss(matrix, covariance, [1, 4])
    assert expected[0] + float(reader.costs()[1]) == pytest.approx(joint, rel=1e-9)


def test_a_channel_of_several_inputs(make_group):
    matrix, covariance = drawn(1, 3, 6, 1, seed=11), covariance_of(1, 6, seed=12)  # flatten: three of two positions
    group = make_group("x", 3, ("w", 1, "in", ((0, 1), (2, 3), (4, 5))))
    expected = [least_loss(matrix, covariance, [2 * c, 2 * c + 1]) for c in range(3)]
    assert reader_of(group, moments_of(matrix, covariance)).costs().tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("counted_over_all", [False, True])
def test_a_grouped_reader_by_either_way_to_count_its_inputs(make_group, counted_over_all):
    # a grouped convolution's slice counts inputs inside a conv group, that of a grouped transposed one over all
    matrix, covariance = drawn(2, 3, 2, 4, seed=13), covariance_of(2, 2, seed=14)
    entries = ((0,), (1,), (2,), (3,)) if counted_over_all else ((0,), (1,), (), ())
    group = replace(make_group("x", 4, ("w", 1, "in", entries)), bundles=((0, 2), (1, 3)))
    expected = [least_loss(matrix, covariance, [0]), least_loss(matrix, covariance, [1])]
    assert reader_of(group, moments_of(matrix, covariance)).costs().tolist() == pytest.approx(expected, rel=1e-9)


def test_a_constant_input_costs_nothing_and_changes_nothing_else(make_group):
    matrix, covariance = drawn(1, 3, 4, 1, seed=15), covariance_of(1, 4, seed=16)
    covariance[:, 2] = covariance[:, :, 2] = 0
    group = make_group("x", 4, ("w", 1, "in", tuple((i,) for i in range(4))))
    costs = reader_of(group, moments_of(matrix, covariance)).costs().tolist()
    assert costs[2] == pytest.approx(0, abs=1e-8)
    assert min(costs[:2] + costs[3:]) > 1e-3


def test_a_wide_layer_behind_a_flatten_shares_one_covariance_over_positions(make_group):
    # Two channels of two positions, four rows. By position and row channel a is 1, -1, 1, -1, then 1, -1, -1, 1, and b
    # is 2 a: b makes up for a entirely, with half of a's weight at each position.
    a = torch.tensor([[1.0, -1, 1, -1], [1, -1, -1, 1]])
    rows = torch.stack([a[0], a[1], 2 * a[0], 2 * a[1]], 1) + 5
    matrix = torch.tensor([[1.0, 3, -1, 2]]).view(1, 1, 4, 1)
    moments = Moments(matrix, MANY, rows=[rows[:2], rows[2:]], sensitivity=torch.ones(1, dtype=torch.float64))
    group = make_group("x", 2, ("w", 1, "in", ((0, 1), (2, 3))))
    reader = reader_of(group, moments)
    assert reader.inverse.shape == (1, 2, 2)
    pooled = torch.tensor([[[1.0, 2], [2, 4]]]).double()
    by_position = matrix.double().view(1, 1, 2, 2)  # one output, channels, positions: like a kernel of two
    expected = [least_loss(by_position, pooled, [channel]) for channel in range(2)]
    assert reader.costs().tolist() == pytest.approx(expected, rel=1e-6)
    assert max(expected) < 0.07


def test_shrunk_by_hand():
    # Correlation 1/2 of two inputs, tr(R^2) = 2.5, on 9 rows: rho = (0 + 4) / ((9 + 1 - 1) (2.5 - 2)) = 8/9.
    covariance = torch.tensor([[[4.0, 3], [3, 9]]]).double()
    expected = torch.tensor([[[4.0, 3 / 9], [3 / 9, 9]]]).double()
    assert torch.allclose(shrunk(covariance, 9), expected)


def test_shrunk_on_many_and_on_few_rows():
    covariance = covariance_of(3, 6, seed=17)
    assert torch.allclose(shrunk(covariance, MANY), covariance, rtol=1e-9)
    diagonal = torch.diag_embed(covariance.diagonal(dim1=1, dim2=2))
    assert torch.allclose(shrunk(covariance, 1), diagonal)
    between = shrunk(covariance, 40)
    assert torch.allclose(between.diagonal(dim1=1, dim2=2), covariance.diagonal(dim1=1, dim2=2))
    ratios = (between / covariance).flatten(1)
    assert bool(((ratios > 0) & (ratios < 1 + 1e-12)).all())


def test_inputs_that_never_change_do_not_shrink_the_others():
    covariance = torch.zeros(1, 8, 8, dtype=torch.float64)
    covariance[0, :2, :2] = torch.tensor([[4.0, 3], [3, 9]])
    assert float(shrunk(covariance, 9)[0, 0, 1]) == pytest.approx(3 / 9)  # as without the six
    one_alone = torch.zeros(1, 3, 3, dtype=torch.float64)
    one_alone[0, 1, 1] = 2.0
    assert torch.equal(shrunk(one_alone, 5), one_alone)
    assert torch.equal(shrunk(torch.zeros(1, 3, 3, dtype=torch.float64), 5), torch.zeros(1, 3, 3, dtype=torch.float64))


def test_a_slice_without_indices_is_no_reader(make_group):
    group = make_group("x", 2, ("w", 1, "in", ((), ())))
    moments = moments_of(drawn(1, 3, 4, 1), covariance_of(1, 4))
    assert Reader.of(group, Slice("w", 1, "in", ((), ())), moments, MANY).costs().tolist() == [0.0, 0.0]


def reader(covariance: torch.Tensor, weight: torch.Tensor) -> Reader:
    channels = torch.arange(covariance.shape[0])[:, None]
    return Reader(torch.linalg.inv(covariance)[None], (weight.T @ weight)[None], channels)


def test_directions_that_are_not_read_are_lost_for_nothing():
    unit = torch.eye(2, dtype=torch.float64)
    total, difference = (torch.tensor([row], dtype=torch.float64) for row in ([1.0, 1.0], [1.0, -1.0]))
    assert principal_losses([reader(unit, total)]).tolist() == pytest.approx([0.0, 2.0], abs=1e-12)
    both = [reader(unit, total), reader(unit, 3 * difference)]
    assert principal_losses(both).tolist() == pytest.approx([2.0, 18.0])


def test_no_direction_costs_more_than_the_channels_do():
    source = torch.Generator().manual_seed(0)
    shape, weight = (torch.randn(5, 5, generator=source, dtype=torch.float64) for _ in range(2))
    its = reader(shape @ shape.T, weight)
    losses = principal_losses([its]).cumsum(0)
    assert float(losses[0]) <= float(its.costs().min())
    assert float(losses[-1]) == pytest.approx(float((shape @ shape.T * (weight.T @ weight)).sum()))


def test_a_stream_that_is_read_in_parts_has_no_directions():
    unit = torch.eye(4, dtype=torch.float64)
    parts = Reader(unit[None], unit[None], torch.tensor([[0, 1], [2, 3]]))
    assert principal_losses([parts]) is None
