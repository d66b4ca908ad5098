"""Which samples a step sees, whoever shares them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peelcli.training.order import Order, smallest_piece


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 4), st.integers(1, 3), st.integers(0, 9))
def test_processes_and_pieces_share_a_step_without_loss(samples, batch, ranks, pieces, seed):
    order = Order(samples, min(batch, samples), 50, seed)
    for step in (0, 3):
        whole = order.positions(step)
        parts = [order.part(step, rank, ranks, pieces) for rank in range(ranks)]
        assert sorted(at for part in parts for piece in part for at in piece) == sorted(whole)
        sizes = [[len(piece) for piece in part] for part in parts]
        assert all(len(part) == min(pieces, sum(part)) for part in sizes)
        assert min(size for part in sizes for size in part or [1]) >= smallest_piece(len(whole), ranks, pieces)
        assert all(max(part) - min(part) <= 1 for part in sizes if part)


def test_no_piece_is_what_others_left_over():
    part = Order(10, 10, 1, seed=0).part(0, rank=0, ranks=1, pieces=4)
    assert sorted(map(len, part)) == [2, 2, 3, 3]  # 3, 3, 3 and 1 would leave a norm a single sample
    assert smallest_piece(10, 1, 4) == 2
    assert smallest_piece(10, 2, 4) == 1
    assert smallest_piece(3, 1, 4) == 1


def test_an_epoch_is_a_permutation_and_the_next_one_another():
    order = Order(12, 4, 9, seed=1)
    epochs = [[at for step in range(first, first + 3) for at in order.positions(step)] for first in (0, 3)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]
    assert order.epoch(3) == 1.0


def test_another_seed_is_another_order():
    assert Order(50, 50, 1, 0).positions(0) != Order(50, 50, 1, 1).positions(0)
