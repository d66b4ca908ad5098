from __future__ import annotations

from collections import Counter

import pytest
import torch

from peelcli.samples import Samples, spread


def numbered(count: int) -> Samples:
    return Samples(tuple((torch.full((1, 2), float(k)),) for k in range(count)), "numbers")


@pytest.mark.parametrize(("count", "most"), [(10, 4), (512, 256), (7, 7), (1000, 3), (3, 5)])
def test_one_position_of_each_part_is_taken(count, most):
    found = spread(count, most)
    assert len(found) == min(count, most)
    parts = [part * count // min(most, count) for part in range(min(most, count) + 1)]
    assert all(start <= at < end for at, start, end in zip(found, parts, parts[1:], strict=False))
    assert spread(count, most) == found


@pytest.mark.parametrize(("count", "most"), [(512, 256), (512, 102), (256, 51)])
def test_a_list_in_which_ten_classes_take_turns_gives_all_of_them(count, most):
    # Every second of such a list is of five classes only, and every fifth of two.
    seen = Counter(at % 10 for at in spread(count, most))
    assert len(seen) == 10
    assert max(seen.values()) < 3 * min(seen.values()) + 3


def test_what_is_fitted_on_and_what_is_held_out_are_all():
    fit, held = numbered(23).split(5)
    assert (len(fit), len(held)) == (19, 4)
    values = [float(inputs[0][0, 0]) for inputs in (*fit.inputs, *held.inputs)]
    assert sorted(values) == list(range(23))
